package madeup

import (
	"context"

	"google.golang.org/protobuf/proto"

	"github.com/xebec-project/xebec/internal/apierr"
	"github.com/xebec-project/xebec/internal/client"
	"github.com/xebec-project/xebec/internal/controller"
	gadgetsv1 "github.com/xebec-project/xebec/tests/madeup/proto/gadgets/v1"
)

// Control adds to a term the controller of gadgets, which has as many as are wanted at once.
func Control(t *controller.Term) {
	gadgets := controller.Informer(t, client.InformerOptions[*gadgetsv1.Gadget]{Kind: Kinds()[0]})
	c := t.Controller("gadgets", 1, func(ctx context.Context, key controller.Key) (controller.Result, error) {
		seen, ok := gadgets.Get(key.Namespace, key.Name)
		if !ok {
			return controller.Result{}, nil
		}
		gadget := client.Clone(seen)
		gadget.Status = &gadgetsv1.GadgetStatus{
			Replicas: gadget.GetSpec().GetReplicas(), Selector: gadget.GetSpec().GetSelector(),
			ObservedGeneration: gadget.GetMetadata().GetGeneration(),
		}
		if proto.Equal(gadget.GetStatus(), seen.GetStatus()) {
			return controller.Result{}, nil
		}
		_, err := client.UpdateStatus(ctx, t.Client(), gadget)
		if apierr.IsNotFound(err) {
			err = nil
		}
		return controller.Result{}, err
	})
	controller.For(c, gadgets)
}
