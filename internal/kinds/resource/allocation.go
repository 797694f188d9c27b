package resource

import (
	"slices"

	"google.golang.org/protobuf/proto"
	"k8s.io/apimachinery/pkg/util/validation"
	"k8s.io/apimachinery/pkg/util/validation/field"

	"github.com/xebec-project/xebec/internal/kinds/core"
	"github.com/xebec-project/xebec/internal/kinds/rules"
	resourcev1 "github.com/xebec-project/xebec/proto/xebec/resource/v1"
)

// deviceID identifies a device, or a share of one, among those of all drivers.
type deviceID struct{ driver, pool, device, share string }

// allocatedDevices returns the devices of an allocation.
func allocatedDevices(a *resourcev1.AllocationResult) map[deviceID]bool {
	return rules.SetOf(a.GetDevices().GetResults(), func(r *resourcev1.DeviceRequestAllocationResult) deviceID {
		return deviceID{r.GetDriver(), r.GetPool(), r.GetDevice(), r.GetShareId()}
	})
}

func idOf(d *resourcev1.AllocatedDeviceStatus) deviceID {
	return deviceID{d.GetDriver(), d.GetPool(), d.GetDevice(), d.GetShareId()}
}

// dropDeallocated drops what drivers reported of devices that are no longer allocated, so that who
// deallocates a claim need not know of it.
func dropDeallocated(now, old *resourcev1.ResourceClaim) {
	if now.GetStatus() == nil {
		return
	}
	before, after := allocatedDevices(old.GetStatus().GetAllocation()), allocatedDevices(now.GetStatus().GetAllocation())
	now.Status.Devices = slices.DeleteFunc(now.Status.Devices, func(d *resourcev1.AllocatedDeviceStatus) bool {
		return before[idOf(d)] && !after[idOf(d)]
	})
}

func checkClaimStatus(now, old *resourcev1.ResourceClaim, c *rules.Checker) {
	p := field.NewPath("status")
	status, allocation, was := now.GetStatus(), now.GetStatus().GetAllocation(), old.GetStatus().GetAllocation()
	checkReservations(c, p.Child("reservedFor"), now, old)
	allocated := allocatedDevices(allocation)
	for i, d := range status.GetDevices() {
		checkDeviceStatus(c, p.Child("devices").Index(i), d, allocated[idOf(d)])
	}
	switch {
	case allocation == nil:
	case was == nil:
		checkAllocation(c, p.Child("allocation"), allocation, namesOf(now.GetSpec().GetDevices()))
	case !proto.Equal(allocation, was):
		c.Invalid(p.Child("allocation"), field.OmitValueType{}, rules.Immutable)
	}
}

// checkReservations checks which objects may use a claim: none without an allocation, and no new
// ones while the claim is being deleted.
func checkReservations(c *rules.Checker, p *field.Path, now, old *resourcev1.ResourceClaim) {
	consumers := now.GetStatus().GetReservedFor()
	switch {
	case len(consumers) == 0:
	case now.GetStatus().GetAllocation() == nil:
		c.Forbidden(p, "may not be specified when `allocated` is not set")
	case now.GetMetadata().GetDeletionTimestamp() != nil:
		type consumer struct{ group, resource, name, uid string }
		key := func(r *resourcev1.ResourceClaimConsumerReference) consumer {
			return consumer{r.GetApiGroup(), r.GetResource(), r.GetName(), r.GetUid()}
		}
		had := rules.SetOf(old.GetStatus().GetReservedFor(), key)
		added := func(r *resourcev1.ResourceClaimConsumerReference) bool { return !had[key(r)] }
		if slices.ContainsFunc(consumers, added) {
			c.Forbidden(p, "new entries may not be added while `deallocationRequested` or `deletionTimestamp` are set")
		}
	}
}

func checkDeviceStatus(c *rules.Checker, p *field.Path, d *resourcev1.AllocatedDeviceStatus, allocated bool) {
	checkDriver(c, p.Child("driver"), d.GetDriver())
	checkPool(c, p.Child("pool"), d.GetPool())
	checkShareID(c, p.Child("shareID"), d.ShareId)
	if !allocated {
		c.Invalid(p, field.OmitValueType{}, "must be an allocated device in the claim")
	}
	c.Conditions(p.Child("conditions"), d.GetConditions())
	if len(d.GetData().GetRaw()) > 0 {
		checkData(c, p.Child("data"), d.GetData())
	}
	for i, address := range d.GetNetworkData().GetIps() {
		c.List = append(c.List, validation.IsValidInterfaceAddress(p.Child("networkData", "ips").Index(i), address)...)
	}
}

// checkAllocation checks a new allocation to a claim with these requests.
func checkAllocation(c *rules.Checker, p *field.Path, a *resourcev1.AllocationResult, names requestNames) {
	for i, r := range a.GetDevices().GetResults() {
		at := p.Child("devices", "results").Index(i)
		names.checkOne(c, at.Child("request"), r.GetRequest())
		checkDriver(c, at.Child("driver"), r.GetDriver())
		checkPool(c, at.Child("pool"), r.GetPool())
		checkBindingConditions(c, at, r.GetBindingConditions(), r.GetBindingFailureConditions())
		checkShareID(c, at.Child("shareID"), r.ShareId)
		checkAmounts(c, at.Child("consumedCapacity"), r.GetConsumedCapacity())
	}
	for i, config := range a.GetDevices().GetConfig() {
		at := p.Child("devices", "config").Index(i)
		names.check(c, at.Child("requests"), config.GetRequests())
		checkConfiguration(c, at, config.GetDeviceConfiguration())
	}
	core.CheckNodeSelector(c, p.Child("nodeSelector"), a.GetNodeSelector())
}

// checkBindingConditions checks the types of conditions for the binding of pods to a device, at p:
// there are both or none, and all of them differ.
func checkBindingConditions(c *rules.Checker, p *field.Path, conditions, failures []string) {
	forBinding, forFailure := p.Child("bindingConditions"), p.Child("bindingFailureConditions")
	wanted, failing := rules.Names{}, rules.Names{}
	for i, condition := range conditions {
		c.Unique(forBinding.Index(i), wanted, condition)
	}
	for i, condition := range failures {
		c.Unique(forFailure.Index(i), failing, condition)
		if wanted[condition] {
			c.Invalid(forFailure.Index(i), condition, "bindingFailureConditions must not overlap with bindingConditions")
		}
	}
	if len(conditions) == 0 && len(failures) > 0 {
		c.Invalid(forBinding, conditions, "bindingConditions are required to use bindingFailureConditions")
	}
	if len(failures) == 0 && len(conditions) > 0 {
		c.Invalid(forFailure, failures, "bindingFailureConditions are required to use bindingConditions")
	}
}
