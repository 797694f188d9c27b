package main

import (
	"context"
	"fmt"
	"reflect"

	"k8s.io/apimachinery/pkg/api/equality"
	"k8s.io/apimachinery/pkg/api/meta"
	"k8s.io/apimachinery/pkg/api/validation"
	"k8s.io/apimachinery/pkg/api/validation/path"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/util/validation/field"
	"k8s.io/kubernetes/pkg/api/legacyscheme"
	claimutil "k8s.io/kubernetes/pkg/api/persistentvolumeclaim"
	podutil "k8s.io/kubernetes/pkg/api/pod"
	"k8s.io/kubernetes/pkg/apis/apps"
	appsvalidation "k8s.io/kubernetes/pkg/apis/apps/validation"
	"k8s.io/kubernetes/pkg/apis/batch"
	"k8s.io/kubernetes/pkg/apis/coordination"
	coordinationvalidation "k8s.io/kubernetes/pkg/apis/coordination/validation"
	"k8s.io/kubernetes/pkg/apis/core"
	corevalidation "k8s.io/kubernetes/pkg/apis/core/validation"
	"k8s.io/kubernetes/pkg/apis/discovery"
	discoveryvalidation "k8s.io/kubernetes/pkg/apis/discovery/validation"
	"k8s.io/kubernetes/pkg/apis/networking"
	networkingvalidation "k8s.io/kubernetes/pkg/apis/networking/validation"
	"k8s.io/kubernetes/pkg/features"
)

// validateCreate does what the strategies of Kubernetes' registries do before an object, which was
// sent in a version, is created.
func validateCreate(object runtime.Object, version schema.GroupVersion) (field.ErrorList, error) {
	m, err := meta.Accessor(object)
	if err != nil {
		return nil, err
	}
	if m.GetName() == "" && m.GetGenerateName() != "" {
		m.SetName(m.GetGenerateName() + "abcde")
	}
	errs, err := create(object, version)
	if err != nil || len(errs) > 0 {
		return errs, err
	}
	return metadata(object)
}

// metadata checks what objects of all kinds have, as every write does after the checks of the kind.
func metadata(object runtime.Object) (field.ErrorList, error) {
	m, err := meta.Accessor(object)
	if err != nil {
		return nil, err
	}
	namespaced := !kinds[reflect.TypeOf(object)].cluster
	switch object.(type) {
	case *core.Namespace, *core.Node, *networking.IPAddress:
		namespaced = false
	}
	return validation.ValidateObjectMetaAccessor(m, namespaced, path.ValidatePathSegmentName, field.NewPath("metadata")), nil
}

func create(object runtime.Object, version schema.GroupVersion) (field.ErrorList, error) {
	if k, ok := kinds[reflect.TypeOf(object)]; ok {
		return k.create(object), nil
	}
	switch o := object.(type) {
	case *core.ConfigMap:
		return corevalidation.ValidateConfigMap(o), nil
	case *core.Event:
		return corevalidation.ValidateEventCreate(o, version), nil
	case *core.Namespace:
		return corevalidation.ValidateNamespace(o), nil
	case *core.Node:
		return corevalidation.ValidateNode(o), nil
	case *core.Pod:
		o.Status = core.PodStatus{Phase: core.PodPending}
		podutil.DropDisabledPodFields(o, nil)
		options := podutil.GetValidationOptionsFromPodSpecAndMeta(&o.Spec, nil, &o.ObjectMeta, nil)
		options.ResourceIsPod = true
		return corevalidation.ValidatePodCreate(o, options), nil
	case *core.PersistentVolumeClaim:
		o.Status = core.PersistentVolumeClaimStatus{}
		settleClaim(o, nil)
		return corevalidation.ValidatePersistentVolumeClaim(o, corevalidation.ValidationOptionsForPersistentVolumeClaim(o, nil)), nil
	case *core.PodTemplate:
		podutil.DropDisabledTemplateFields(&o.Template, nil)
		return corevalidation.ValidatePodTemplate(o, podutil.GetValidationOptionsFromPodTemplate(&o.Template, nil)), nil
	case *core.ReplicationController:
		o.Status = core.ReplicationControllerStatus{}
		podutil.DropDisabledTemplateFields(o.Spec.Template, nil)
		options := podutil.GetValidationOptionsFromPodTemplate(o.Spec.Template, nil)
		return declared(o, nil, corevalidation.ValidateReplicationController(o, options)), nil
	case *core.Secret:
		return corevalidation.ValidateSecret(o), nil
	case *core.Service:
		o.Status = core.ServiceStatus{}
		return corevalidation.ValidateServiceCreate(o), nil
	case *core.ServiceAccount:
		return corevalidation.ValidateServiceAccount(o), nil
	case *apps.ControllerRevision:
		return appsvalidation.ValidateControllerRevisionCreate(o), nil
	case *apps.DaemonSet:
		o.Status, o.Spec.TemplateGeneration = apps.DaemonSetStatus{}, max(o.Spec.TemplateGeneration, 1)
		podutil.DropDisabledTemplateFields(&o.Spec.Template, nil)
		return appsvalidation.ValidateDaemonSet(o, podutil.GetValidationOptionsFromPodTemplate(&o.Spec.Template, nil)), nil
	case *apps.Deployment:
		o.Status = apps.DeploymentStatus{}
		podutil.DropDisabledTemplateFields(&o.Spec.Template, nil)
		return appsvalidation.ValidateDeployment(o, podutil.GetValidationOptionsFromPodTemplate(&o.Spec.Template, nil)), nil
	case *apps.ReplicaSet:
		o.Status = apps.ReplicaSetStatus{}
		podutil.DropDisabledTemplateFields(&o.Spec.Template, nil)
		return appsvalidation.ValidateReplicaSet(o, podutil.GetValidationOptionsFromPodTemplate(&o.Spec.Template, nil)), nil
	case *apps.StatefulSet:
		o.Status = apps.StatefulSetStatus{}
		podutil.DropDisabledTemplateFields(&o.Spec.Template, nil)
		return appsvalidation.ValidateStatefulSet(o, podutil.GetValidationOptionsFromPodTemplate(&o.Spec.Template, nil)), nil
	case *batch.CronJob:
		return createCronJob(o), nil
	case *batch.Job:
		return createJob(o), nil
	case *coordination.Lease:
		return coordinationvalidation.ValidateLease(o), nil
	case *discovery.EndpointSlice:
		return declared(o, nil, discoveryvalidation.ValidateEndpointSliceCreate(o)), nil
	case *networking.IPAddress:
		return declared(o, nil, networkingvalidation.ValidateIPAddress(o)), nil
	case *networking.NetworkPolicy:
		options := networkingvalidation.ValidationOptionsForNetworking(o, nil)
		return declared(o, nil, networkingvalidation.ValidateNetworkPolicy(o, options)), nil
	}
	return nil, fmt.Errorf("no validation for %T", object)
}

// validateUpdate does what the strategies do before an object is updated; status stays as it was,
// unless the update is by the subresource.
func validateUpdate(object, old runtime.Object, version schema.GroupVersion, subresource string) (field.ErrorList, error) {
	if err := keepSystemFields(object, old); err != nil {
		return nil, err
	}
	write := func(object, old runtime.Object) (field.ErrorList, error) { return update(object, old, version) }
	switch subresource {
	case "status":
		write = updateStatus
	case "resize":
		write = resize
	case "ephemeralcontainers":
		write = addEphemeralContainers
	case "approval":
		write = approve
	}
	errs, err := write(object, old)
	if err != nil || len(errs) > 0 {
		return errs, err
	}
	if errs, err := metadata(object); err != nil || len(errs) > 0 {
		return errs, err
	}
	m, err := meta.Accessor(object)
	if err != nil {
		return nil, err
	}
	was, err := meta.Accessor(old)
	if err != nil {
		return nil, err
	}
	return validation.ValidateObjectMetaAccessorUpdate(m, was, field.NewPath("metadata")), nil
}

func update(object, old runtime.Object, version schema.GroupVersion) (field.ErrorList, error) {
	if k, ok := kinds[reflect.TypeOf(object)]; ok {
		return k.update(object, old), nil
	}
	switch o := object.(type) {
	case *core.ConfigMap:
		return corevalidation.ValidateConfigMapUpdate(o, old.(*core.ConfigMap)), nil
	case *core.Event:
		return corevalidation.ValidateEventUpdate(o, old.(*core.Event), version), nil
	case *core.Namespace:
		was := old.(*core.Namespace)
		o.Spec.Finalizers, o.Status = was.Spec.Finalizers, was.Status
		return append(corevalidation.ValidateNamespace(o), corevalidation.ValidateNamespaceUpdate(o, was)...), nil
	case *core.Node:
		was := old.(*core.Node)
		o.Status = was.Status
		return append(corevalidation.ValidateNode(o), corevalidation.ValidateNodeUpdate(o, was)...), nil
	case *core.Pod:
		was := old.(*core.Pod)
		o.Status = was.Status
		podutil.DropDisabledPodFields(o, was)
		options := podutil.GetValidationOptionsFromPodSpecAndMeta(&o.Spec, &was.Spec, &o.ObjectMeta, &was.ObjectMeta)
		options.ResourceIsPod = true
		return corevalidation.ValidatePodUpdate(o, was, options), nil
	case *core.PersistentVolumeClaim:
		was := old.(*core.PersistentVolumeClaim)
		o.Status = was.Status
		settleClaim(o, was)
		options := corevalidation.ValidationOptionsForPersistentVolumeClaim(o, was)
		return corevalidation.ValidatePersistentVolumeClaimUpdate(o, was, options), nil
	case *core.PodTemplate:
		was := old.(*core.PodTemplate)
		podutil.DropDisabledTemplateFields(&o.Template, &was.Template)
		return corevalidation.ValidatePodTemplateUpdate(o, was, podutil.GetValidationOptionsFromPodTemplate(&o.Template, &was.Template)), nil
	case *core.ReplicationController:
		was := old.(*core.ReplicationController)
		o.Status = was.Status
		podutil.DropDisabledTemplateFields(o.Spec.Template, was.Spec.Template)
		options := podutil.GetValidationOptionsFromPodTemplate(o.Spec.Template, was.Spec.Template)
		return declared(o, was, corevalidation.ValidateReplicationControllerUpdate(o, was, options)), nil
	case *core.Secret:
		return corevalidation.ValidateSecretUpdate(o, old.(*core.Secret)), nil
	case *core.Service:
		was := old.(*core.Service)
		o.Status = was.Status
		return corevalidation.ValidateServiceUpdate(o, was), nil
	case *core.ServiceAccount:
		return corevalidation.ValidateServiceAccountUpdate(o, old.(*core.ServiceAccount)), nil
	case *apps.ControllerRevision:
		return appsvalidation.ValidateControllerRevisionUpdate(o, old.(*apps.ControllerRevision)), nil
	case *apps.DaemonSet:
		was := old.(*apps.DaemonSet)
		o.Status, o.Spec.TemplateGeneration = was.Status, was.Spec.TemplateGeneration
		podutil.DropDisabledTemplateFields(&o.Spec.Template, &was.Spec.Template)
		if !equality.Semantic.DeepEqual(o.Spec.Template, was.Spec.Template) {
			o.Spec.TemplateGeneration++
		}
		options := podutil.GetValidationOptionsFromPodTemplate(&o.Spec.Template, &was.Spec.Template)
		return appsvalidation.ValidateDaemonSetUpdate(o, was, options), nil
	case *apps.Deployment:
		was := old.(*apps.Deployment)
		o.Status = was.Status
		podutil.DropDisabledTemplateFields(&o.Spec.Template, &was.Spec.Template)
		options := podutil.GetValidationOptionsFromPodTemplate(&o.Spec.Template, &was.Spec.Template)
		return appsvalidation.ValidateDeploymentUpdate(o, was, options), nil
	case *apps.ReplicaSet:
		was := old.(*apps.ReplicaSet)
		o.Status = was.Status
		podutil.DropDisabledTemplateFields(&o.Spec.Template, &was.Spec.Template)
		options := podutil.GetValidationOptionsFromPodTemplate(&o.Spec.Template, &was.Spec.Template)
		return appsvalidation.ValidateReplicaSetUpdate(o, was, options), nil
	case *apps.StatefulSet:
		was := old.(*apps.StatefulSet)
		o.Status = was.Status
		podutil.DropDisabledTemplateFields(&o.Spec.Template, &was.Spec.Template)
		options := podutil.GetValidationOptionsFromPodTemplate(&o.Spec.Template, &was.Spec.Template)
		return appsvalidation.ValidateStatefulSetUpdate(o, was, options), nil
	case *batch.CronJob:
		return updateCronJob(o, old.(*batch.CronJob)), nil
	case *batch.Job:
		return updateJob(o, old.(*batch.Job)), nil
	case *coordination.Lease:
		return coordinationvalidation.ValidateLeaseUpdate(o, old.(*coordination.Lease)), nil
	case *discovery.EndpointSlice:
		was := old.(*discovery.EndpointSlice)
		return declared(o, was, discoveryvalidation.ValidateEndpointSliceUpdate(o, was)), nil
	case *networking.IPAddress:
		was := old.(*networking.IPAddress)
		errs := append(networkingvalidation.ValidateIPAddress(o), networkingvalidation.ValidateIPAddressUpdate(o, was)...)
		return declared(o, was, errs), nil
	case *networking.NetworkPolicy:
		was := old.(*networking.NetworkPolicy)
		options := networkingvalidation.ValidationOptionsForNetworking(o, was)
		return declared(o, was, networkingvalidation.ValidateNetworkPolicyUpdate(o, was, options)), nil
	}
	return nil, fmt.Errorf("no validation for %T", object)
}

// settleClaim does what the strategy of claims does before validation.
func settleClaim(claim, was *core.PersistentVolumeClaim) {
	var old *core.PersistentVolumeClaimSpec
	if was != nil {
		old = &was.Spec
	}
	claimutil.DropDisabledFields(&claim.Spec, old)
	claimutil.EnforceDataSourceBackwardsCompatibility(&claim.Spec, old)
	claimutil.NormalizeDataSources(&claim.Spec)
	if was != nil {
		claimutil.NormalizeDataSources(old)
	}
}

// keepSystemFields does what every update does with metadata that the server owns.
func keepSystemFields(object, old runtime.Object) error {
	m, err := meta.Accessor(object)
	if err != nil {
		return err
	}
	was, err := meta.Accessor(old)
	if err != nil {
		return err
	}
	m.SetGeneration(was.GetGeneration())
	if m.GetUID() == "" {
		m.SetUID(was.GetUID())
	}
	if t := m.GetCreationTimestamp(); t.IsZero() {
		m.SetCreationTimestamp(was.GetCreationTimestamp())
	}
	if m.GetDeletionTimestamp().IsZero() {
		m.SetDeletionTimestamp(was.GetDeletionTimestamp())
	}
	if m.GetDeletionGracePeriodSeconds() == nil {
		m.SetDeletionGracePeriodSeconds(was.GetDeletionGracePeriodSeconds())
	}
	if m.GetResourceVersion() == "" {
		m.SetResourceVersion("1")
	}
	return nil
}

// gates are the feature gates that declarative rules of PodGroups and Workloads ask about.
var gates = []string{
	string(features.DRAWorkloadResourceClaims), string(features.TopologyAwareWorkloadScheduling), string(features.WorkloadAwarePreemption),
}

// declared adds what the declarative rules of a kind find beyond its written ones.
func declared(object, old runtime.Object, errs field.ErrorList) field.ErrorList {
	var found field.ErrorList
	if old == nil {
		found = legacyscheme.Scheme.Validate(context.Background(), gates, external(object))
	} else {
		found = legacyscheme.Scheme.ValidateUpdate(context.Background(), gates, external(object), external(old))
	}
	matcher := field.ErrorMatcher{}.ByType().ByField()
	for _, e := range found {
		known := false
		for _, x := range errs {
			known = known || matcher.Matches(x, e)
		}
		if !known {
			errs = append(errs, e)
		}
	}
	return errs
}

// external returns the object in the version that declarative rules are registered for.
func external(object runtime.Object) runtime.Object {
	kinds, _, err := legacyscheme.Scheme.ObjectKinds(object)
	if err != nil {
		exit(err)
	}
	version := schema.GroupVersion{Group: kinds[0].Group, Version: "v1"}
	if !legacyscheme.Scheme.Recognizes(version.WithKind(kinds[0].Kind)) {
		version.Version = "v1alpha2"
	}
	converted, err := legacyscheme.Scheme.ConvertToVersion(object, version)
	if err != nil {
		exit(err)
	}
	return converted
}
