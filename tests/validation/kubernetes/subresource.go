package main

import (
	"fmt"
	"reflect"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/util/validation/field"
	podutil "k8s.io/kubernetes/pkg/api/pod"
	"k8s.io/kubernetes/pkg/apis/apps"
	appsvalidation "k8s.io/kubernetes/pkg/apis/apps/validation"
	"k8s.io/kubernetes/pkg/apis/batch"
	"k8s.io/kubernetes/pkg/apis/core"
	corevalidation "k8s.io/kubernetes/pkg/apis/core/validation"
)

// updateStatus does what the strategies of the subresource status do.
func updateStatus(object, old runtime.Object) (field.ErrorList, error) {
	if k := kinds[reflect.TypeOf(object)]; k.updateStatus != nil {
		return k.updateStatus(object, old), nil
	}
	switch o := object.(type) {
	case *core.Namespace:
		was := old.(*core.Namespace)
		o.Spec = was.Spec
		return corevalidation.ValidateNamespaceStatusUpdate(o, was), nil
	case *core.Node:
		was := old.(*core.Node)
		o.Spec, o.Status.Config = was.Spec, nil
		return corevalidation.ValidateNodeUpdate(o, was), nil
	case *core.PersistentVolumeClaim:
		was := old.(*core.PersistentVolumeClaim)
		o.Spec = was.Spec
		options := corevalidation.ValidationOptionsForPersistentVolumeClaim(o, was)
		return corevalidation.ValidatePersistentVolumeClaimStatusUpdate(o, was, options), nil
	case *core.Pod:
		was := old.(*core.Pod)
		o.Spec, o.DeletionTimestamp, o.OwnerReferences = was.Spec, nil, was.OwnerReferences
		if o.Status.QOSClass == "" {
			o.Status.QOSClass = was.Status.QOSClass
		}
		podutil.DropDisabledPodFields(o, was)
		return corevalidation.ValidatePodStatusUpdate(o, was, podOptions(o, was)), nil
	case *core.Service:
		was := old.(*core.Service)
		o.Spec = was.Spec
		return corevalidation.ValidateServiceStatusUpdate(o, was), nil
	case *core.ReplicationController:
		was := old.(*core.ReplicationController)
		o.Spec = was.Spec
		return corevalidation.ValidateReplicationControllerStatusUpdate(o, was), nil
	case *apps.DaemonSet:
		was := old.(*apps.DaemonSet)
		o.Spec = was.Spec
		return appsvalidation.ValidateDaemonSetStatusUpdate(o, was), nil
	case *apps.Deployment:
		was := old.(*apps.Deployment)
		o.Spec, o.Labels = was.Spec, was.Labels
		return appsvalidation.ValidateDeploymentStatusUpdate(o, was), nil
	case *apps.ReplicaSet:
		was := old.(*apps.ReplicaSet)
		o.Spec = was.Spec
		return appsvalidation.ValidateReplicaSetStatusUpdate(o, was), nil
	case *apps.StatefulSet:
		was := old.(*apps.StatefulSet)
		o.Spec = was.Spec
		return appsvalidation.ValidateStatefulSetStatusUpdate(o, was), nil
	case *batch.CronJob:
		o.Spec = old.(*batch.CronJob).Spec
		return nil, nil
	case *batch.Job:
		return updateJobStatus(o, old.(*batch.Job)), nil
	}
	return nil, fmt.Errorf("no validation for the status of %T", object)
}

func podOptions(pod, was *core.Pod) corevalidation.PodValidationOptions {
	options := podutil.GetValidationOptionsFromPodSpecAndMeta(&pod.Spec, &was.Spec, &pod.ObjectMeta, &was.ObjectMeta)
	options.ResourceIsPod = true
	return options
}

// addEphemeralContainers does what the strategy of the subresource ephemeralcontainers does.
func addEphemeralContainers(object, old runtime.Object) (field.ErrorList, error) {
	pod, was := object.(*core.Pod), old.(*core.Pod)
	added := pod.Spec.EphemeralContainers
	pod.Spec, pod.Status = was.Spec, was.Status
	pod.Spec.EphemeralContainers = added
	metav1.ResetObjectMetaForStatus(&pod.ObjectMeta, &was.ObjectMeta)
	podutil.DropDisabledPodFields(pod, was)
	return corevalidation.ValidatePodEphemeralContainersUpdate(pod, was, podOptions(pod, was)), nil
}

// resize does what the strategy of the subresource resize does.
func resize(object, old runtime.Object) (field.ErrorList, error) {
	pod, was := object.(*core.Pod), old.(*core.Pod)
	if len(pod.Spec.Containers) == len(was.Spec.Containers) && len(pod.Spec.InitContainers) == len(was.Spec.InitContainers) {
		resources := pod.Spec.Resources
		containers := resizeContainers(pod.Spec.Containers, was.Spec.Containers)
		initContainers := resizeContainers(pod.Spec.InitContainers, was.Spec.InitContainers)
		pod.Spec, pod.Status = was.Spec, was.Status
		pod.Spec.Resources, pod.Spec.Containers, pod.Spec.InitContainers = resources, containers, initContainers
		metav1.ResetObjectMetaForStatus(&pod.ObjectMeta, &was.ObjectMeta)
	}
	podutil.DropDisabledPodFields(pod, was)
	return corevalidation.ValidatePodResize(pod, was, podOptions(pod, was)), nil
}

func resizeContainers(now, was []core.Container) []core.Container {
	if len(now) == 0 {
		return now
	}
	out := append([]core.Container(nil), was...)
	for i, c := range now {
		if was[i].Name != c.Name {
			return now
		}
		out[i].Resources, out[i].ResizePolicy = c.Resources, c.ResizePolicy
	}
	return out
}
