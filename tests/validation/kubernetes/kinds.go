package main

import (
	"reflect"

	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/util/validation/field"
	"k8s.io/kubernetes/pkg/apis/certificates"
	certificatesvalidation "k8s.io/kubernetes/pkg/apis/certificates/validation"
	corevalidation "k8s.io/kubernetes/pkg/apis/core/validation"
	"k8s.io/kubernetes/pkg/apis/flowcontrol"
	flowcontrolvalidation "k8s.io/kubernetes/pkg/apis/flowcontrol/validation"
	"k8s.io/kubernetes/pkg/apis/networking"
	networkingvalidation "k8s.io/kubernetes/pkg/apis/networking/validation"
	"k8s.io/kubernetes/pkg/apis/node"
	nodevalidation "k8s.io/kubernetes/pkg/apis/node/validation"
	"k8s.io/kubernetes/pkg/apis/policy"
	policyvalidation "k8s.io/kubernetes/pkg/apis/policy/validation"
	"k8s.io/kubernetes/pkg/apis/scheduling"
	schedulingvalidation "k8s.io/kubernetes/pkg/apis/scheduling/validation"
	"k8s.io/kubernetes/pkg/apis/storage"
	storagevalidation "k8s.io/kubernetes/pkg/apis/storage/validation"
)

// kind does what the strategies of Kubernetes' registry of a kind do before a write. Functions that
// update get the new object first.
type kind struct {
	// cluster is true of kinds without namespaces.
	cluster bool
	create  func(runtime.Object) field.ErrorList
	update  func(object, old runtime.Object) field.ErrorList
	// updateStatus is nil in kinds without a status.
	updateStatus func(object, old runtime.Object) field.ErrorList
}

// of returns the functions for objects of one type as those of a kind. updateStatus may be nil.
func of[T runtime.Object](
	cluster bool, create func(T) field.ErrorList, update, updateStatus func(object, old T) field.ErrorList,
) (reflect.Type, kind) {
	k := kind{
		cluster: cluster,
		create:  func(o runtime.Object) field.ErrorList { return create(o.(T)) },
		update:  func(o, old runtime.Object) field.ErrorList { return update(o.(T), old.(T)) },
	}
	if updateStatus != nil {
		k.updateStatus = func(o, old runtime.Object) field.ErrorList { return updateStatus(o.(T), old.(T)) }
	}
	return reflect.TypeFor[T](), k
}

// kinds are the kinds whose functions are short.
var kinds = func() map[reflect.Type]kind {
	m := map[reflect.Type]kind{}
	add := func(t reflect.Type, k kind) { m[t] = k }
	addFlowControl(add)
	addNetworking(add)
	addResource(add)
	addStorage(add)
	addVolumes(add)
	addServiceCIDR(add)
	add(of(true,
		func(o *certificates.CertificateSigningRequest) field.ErrorList {
			o.Status = certificates.CertificateSigningRequestStatus{}
			return certificatesvalidation.ValidateCertificateSigningRequestCreate(o)
		},
		func(o, old *certificates.CertificateSigningRequest) field.ErrorList {
			o.Spec, o.Status = old.Spec, old.Status
			return certificatesvalidation.ValidateCertificateSigningRequestUpdate(o, old)
		},
		func(o, old *certificates.CertificateSigningRequest) field.ErrorList {
			o.Spec = old.Spec
			keepDecision(o, old)
			return certificatesvalidation.ValidateCertificateSigningRequestStatusUpdate(o, old)
		}))
	add(of(false, corevalidation.ValidateEndpointsCreate, corevalidation.ValidateEndpointsUpdate, nil))
	add(of(true,
		func(o *node.RuntimeClass) field.ErrorList {
			return declared(o, nil, nodevalidation.ValidateRuntimeClass(o))
		},
		func(o, old *node.RuntimeClass) field.ErrorList {
			errs := append(nodevalidation.ValidateRuntimeClass(o), nodevalidation.ValidateRuntimeClassUpdate(o, old)...)
			return declared(o, old, errs)
		}, nil))
	budget := func(o *policy.PodDisruptionBudget) field.ErrorList {
		return policyvalidation.ValidatePodDisruptionBudget(o, policyvalidation.PodDisruptionBudgetValidationOptions{})
	}
	add(of(false, budget,
		func(o, _ *policy.PodDisruptionBudget) field.ErrorList { return budget(o) },
		func(o, old *policy.PodDisruptionBudget) field.ErrorList {
			return policyvalidation.ValidatePodDisruptionBudgetStatusUpdate(
				o.Status, old.Status, field.NewPath("status"), schema.GroupVersion{Group: "policy", Version: "v1"})
		}))
	add(of(true,
		schedulingvalidation.ValidatePriorityClass,
		schedulingvalidation.ValidatePriorityClassUpdate, nil))
	addGroups(add)
	return m
}()

// approve does what the strategy of the subresource approval of signing requests does, times aside.
func approve(object, old runtime.Object) (field.ErrorList, error) {
	o, was := object.(*certificates.CertificateSigningRequest), old.(*certificates.CertificateSigningRequest)
	conditions := o.Status.Conditions
	o.Spec, o.Status = was.Spec, was.Status
	o.Status.Conditions = conditions
	return certificatesvalidation.ValidateCertificateSigningRequestApprovalUpdate(o, was), nil
}

// keepDecision restores the conditions that a write to the status does not change.
func keepDecision(o, was *certificates.CertificateSigningRequest) {
	for _, name := range []certificates.RequestConditionType{certificates.CertificateApproved, certificates.CertificateDenied} {
		var kept []certificates.CertificateSigningRequestCondition
		for _, c := range was.Status.Conditions {
			if c.Type == name {
				kept = append(kept, c)
			}
		}
		var at []int
		for i, c := range o.Status.Conditions {
			if c.Type == name {
				at = append(at, i)
			}
		}
		if len(at) != len(kept) {
			continue
		}
		for i, j := range at {
			o.Status.Conditions[j] = kept[i]
		}
	}
}

func addFlowControl(add func(reflect.Type, kind)) {
	add(of(true,
		func(o *flowcontrol.FlowSchema) field.ErrorList {
			o.Status = flowcontrol.FlowSchemaStatus{}
			return flowcontrolvalidation.ValidateFlowSchema(o)
		},
		func(o, old *flowcontrol.FlowSchema) field.ErrorList {
			o.Status = old.Status
			return flowcontrolvalidation.ValidateFlowSchemaUpdate(old, o)
		},
		func(o, old *flowcontrol.FlowSchema) field.ErrorList {
			version := o.ResourceVersion
			o.ObjectMeta, o.Spec = old.ObjectMeta, old.Spec
			o.ResourceVersion = version
			return flowcontrolvalidation.ValidateFlowSchemaStatusUpdate(old, o)
		}))
	level := func(o *flowcontrol.PriorityLevelConfiguration) field.ErrorList {
		version := schema.GroupVersion{Group: "flowcontrol.apiserver.k8s.io", Version: "v1"}
		return flowcontrolvalidation.ValidatePriorityLevelConfiguration(o, version, flowcontrolvalidation.PriorityLevelValidationOptions{})
	}
	add(of(true,
		func(o *flowcontrol.PriorityLevelConfiguration) field.ErrorList {
			o.Status = flowcontrol.PriorityLevelConfigurationStatus{}
			return level(o)
		},
		func(o, old *flowcontrol.PriorityLevelConfiguration) field.ErrorList {
			o.Status = old.Status
			return level(o)
		},
		func(o, old *flowcontrol.PriorityLevelConfiguration) field.ErrorList {
			version := o.ResourceVersion
			o.ObjectMeta, o.Spec = old.ObjectMeta, old.Spec
			o.ResourceVersion = version
			return flowcontrolvalidation.ValidatePriorityLevelConfigurationStatusUpdate(old, o)
		}))
}

func addNetworking(add func(reflect.Type, kind)) {
	add(of(false,
		func(o *networking.Ingress) field.ErrorList {
			o.Status = networking.IngressStatus{}
			return networkingvalidation.ValidateIngressCreate(o)
		},
		func(o, old *networking.Ingress) field.ErrorList {
			o.Status = old.Status
			return networkingvalidation.ValidateIngressUpdate(o, old)
		},
		func(o, old *networking.Ingress) field.ErrorList {
			o.Spec = old.Spec
			return networkingvalidation.ValidateIngressStatusUpdate(o, old)
		}))
	add(of(true,
		func(o *networking.IngressClass) field.ErrorList {
			return declared(o, nil, networkingvalidation.ValidateIngressClass(o))
		},
		func(o, old *networking.IngressClass) field.ErrorList {
			return declared(o, old, networkingvalidation.ValidateIngressClassUpdate(o, old))
		}, nil))
}

func addStorage(add func(reflect.Type, kind)) {
	add(of(true,
		func(o *storage.StorageClass) field.ErrorList {
			return declared(o, nil, storagevalidation.ValidateStorageClass(o))
		},
		func(o, old *storage.StorageClass) field.ErrorList {
			errs := append(storagevalidation.ValidateStorageClass(o), storagevalidation.ValidateStorageClassUpdate(o, old)...)
			return declared(o, old, errs)
		}, nil))
	add(of(true, storagevalidation.ValidateCSIDriver, storagevalidation.ValidateCSIDriverUpdate, nil))
	capacity := func(o *storage.CSIStorageCapacity) field.ErrorList {
		return storagevalidation.ValidateCSIStorageCapacity(o, storagevalidation.CSIStorageCapacityValidateOptions{})
	}
	add(of(false, capacity,
		func(o, old *storage.CSIStorageCapacity) field.ErrorList {
			return append(capacity(o), storagevalidation.ValidateCSIStorageCapacityUpdate(o, old)...)
		}, nil))
}

func addGroups(add func(reflect.Type, kind)) {
	add(of(false,
		func(o *scheduling.PodGroup) field.ErrorList {
			o.Status = scheduling.PodGroupStatus{}
			return declared(o, nil, schedulingvalidation.ValidatePodGroup(o))
		},
		func(o, old *scheduling.PodGroup) field.ErrorList {
			o.Status = old.Status
			return declared(o, old, schedulingvalidation.ValidatePodGroupUpdate(o, old))
		},
		func(o, old *scheduling.PodGroup) field.ErrorList {
			o.Spec = old.Spec
			return declared(o, old, schedulingvalidation.ValidatePodGroupStatusUpdate(o, old))
		}))
	add(of(false,
		func(o *scheduling.Workload) field.ErrorList {
			return declared(o, nil, schedulingvalidation.ValidateWorkload(o))
		},
		func(o, old *scheduling.Workload) field.ErrorList {
			return declared(o, old, schedulingvalidation.ValidateWorkloadUpdate(o, old))
		}, nil))
}
