package create

import (
	"strconv"

	"github.com/spf13/cobra"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/selection"

	"github.com/xebec-project/xebec/cli/exit"
	"github.com/xebec-project/xebec/cli/session"
	"github.com/xebec-project/xebec/cli/write"
	"github.com/xebec-project/xebec/internal/object"
	metav1 "github.com/xebec-project/xebec/proto/xebec/meta/v1"
	policyv1 "github.com/xebec-project/xebec/proto/xebec/policy/v1"
)

func podDisruptionBudgetCommand(s *session.Session) *cobra.Command {
	var selector, minAvailable, maxUnavailable string
	o := &write.Options{}
	cmd := &cobra.Command{
		Use:     "poddisruptionbudget NAME --selector=SELECTOR {--min-available=N | --max-unavailable=N}",
		Aliases: []string{"pdb"},
		Short:   "Create a pod disruption budget",
		Example: "  xebec create poddisruptionbudget web --selector=app=web --min-available=2\n" +
			"  xebec create pdb web --selector=app=web --max-unavailable=10%",
		Args: cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			if err := o.Parse(); err != nil {
				return err
			}
			namespace, err := s.DefaultNamespace()
			if err != nil {
				return err
			}
			switch {
			case selector == "":
				return exit.Usagef("--selector is required")
			case (minAvailable == "") == (maxUnavailable == ""):
				return exit.Usagef("exactly one of --min-available and --max-unavailable is required")
			}
			selects, err := labelSelector(selector)
			if err != nil {
				return err
			}
			return create(cmd.Context(), s, &policyv1.PodDisruptionBudget{
				Metadata: &metav1.ObjectMeta{Name: args[0], Namespace: namespace},
				Spec: &policyv1.PodDisruptionBudgetSpec{
					Selector: selects, MinAvailable: countOrPercent(minAvailable), MaxUnavailable: countOrPercent(maxUnavailable),
				},
			}, o)
		},
	}
	o.Flags(cmd)
	cmd.Flags().StringVar(&selector, "selector", "", "label selector of the pods, such as app=web,tier!=test")
	cmd.Flags().StringVar(&minAvailable, "min-available", "", "number or percentage of the pods that must stay healthy")
	cmd.Flags().StringVar(&maxUnavailable, "max-unavailable", "", "number or percentage of the pods that may be unhealthy after an eviction")
	return cmd
}

// countOrPercent reads a flag; the server checks it.
func countOrPercent(text string) *metav1.IntOrString {
	if text == "" {
		return nil
	}
	if n, err := strconv.ParseInt(text, 10, 32); err == nil {
		return object.Count(int32(n))
	}
	return object.Text(text)
}

// labelSelector reads a selector as objects hold it.
func labelSelector(text string) (*metav1.LabelSelector, error) {
	requirements, err := labels.ParseToRequirements(text)
	if err != nil {
		return nil, exit.Usagef("invalid --selector value %q: %v", text, err)
	}
	operators := map[selection.Operator]string{
		selection.In: object.OpIn, selection.NotIn: object.OpNotIn, selection.NotEquals: object.OpNotIn,
		selection.Exists: object.OpExists, selection.DoesNotExist: object.OpDoesNotExist,
	}
	s := &metav1.LabelSelector{MatchLabels: map[string]string{}}
	for _, r := range requirements {
		operator, known := operators[r.Operator()]
		switch {
		case r.Operator() == selection.Equals || r.Operator() == selection.DoubleEquals:
			s.MatchLabels[r.Key()] = r.ValuesUnsorted()[0]
		case known:
			s.MatchExpressions = append(s.MatchExpressions, &metav1.LabelSelectorRequirement{
				Key: r.Key(), Operator: operator, Values: r.Values().List(),
			})
		default:
			return nil, exit.Usagef("invalid --selector value %q: want =, !=, in, notin, KEY or !KEY, not %s", text, r.Operator())
		}
	}
	return s, nil
}
