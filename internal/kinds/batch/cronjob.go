package batch

import (
	"fmt"
	"regexp"
	"strconv"
	"strings"
	"time"

	"k8s.io/apimachinery/pkg/util/validation/field"

	"github.com/xebec-project/xebec/internal/kinds/column"
	"github.com/xebec-project/xebec/internal/kinds/core"
	"github.com/xebec-project/xebec/internal/kinds/rules"
	"github.com/xebec-project/xebec/internal/scheme"
	batchv1 "github.com/xebec-project/xebec/proto/xebec/batch/v1"
)

// Concurrency policies of a CronJob, and the annotation of its Jobs that has their scheduled time.
const (
	ConcurrencyAllow   = "Allow"
	ConcurrencyForbid  = "Forbid"
	ConcurrencyReplace = "Replace"

	AnnotationScheduled = "batch.kubernetes.io/cronjob-scheduled-timestamp"
)

// maxCronJobName leaves room in the names of Jobs for a hyphen and the time in ten digits.
const maxCronJobName = 52

var (
	cronJobRules = rules.For[*batchv1.CronJob]{
		Name:     rules.NameIsSubdomain,
		Defaults: func(j *batchv1.CronJob) { defaultJobSpec(j.Spec.JobTemplate.Spec) },
		Check:    checkCronJob,
		CheckNew: func(j *batchv1.CronJob, c *rules.Checker) {
			if name := j.GetMetadata().GetName(); len(name) > maxCronJobName {
				c.Invalid(rules.MetadataPath.Child("name"), name, fmt.Sprintf("must be no more than %d characters", maxCronJobName))
			}
		},
		Warn: func(j *batchv1.CronJob) []string {
			return append(warnName(j), warnJobSpec(field.NewPath("spec", "jobTemplate", "spec"), j.GetSpec().GetJobTemplate().GetSpec())...)
		},
	}
	cronJobColumns = []scheme.Column{
		column.At(".spec.schedule", column.New("SCHEDULE", func(j *batchv1.CronJob) string { return j.GetSpec().GetSchedule() })),
		column.New("TIMEZONE", func(j *batchv1.CronJob) string { return column.OrNone(j.GetSpec().GetTimeZone()) }),
		column.New("SUSPEND", func(j *batchv1.CronJob) string {
			if j.GetSpec().GetSuspend() {
				return "True"
			}
			return "False"
		}),
		column.New("ACTIVE", func(j *batchv1.CronJob) string { return strconv.Itoa(len(j.GetStatus().GetActive())) }),
		column.Aged("LAST SCHEDULE", func(j *batchv1.CronJob, now time.Time) string {
			if last := j.GetStatus().GetLastScheduleTime(); last != nil {
				return column.Age(last, now)
			}
			return column.None
		}),
		column.AgeColumn,
		column.Wide("CONTAINERS", func(j *batchv1.CronJob) string {
			return core.TemplateContainers(j.GetSpec().GetJobTemplate().GetSpec().GetTemplate())
		}),
		column.Wide("IMAGES", func(j *batchv1.CronJob) string {
			return core.TemplateImages(j.GetSpec().GetJobTemplate().GetSpec().GetTemplate())
		}),
		column.Wide("SELECTOR", func(j *batchv1.CronJob) string {
			return column.FormatLabelSelector(j.GetSpec().GetJobTemplate().GetSpec().GetSelector())
		}),
	}
)

func checkCronJob(j *batchv1.CronJob, c *rules.Checker) {
	p, s := field.NewPath("spec"), j.GetSpec()
	if s == nil {
		c.Required(p, "")
		return
	}
	checkSchedule(c, p.Child("schedule"), s.GetSchedule())
	checkTimeZone(c, p.Child("timeZone"), s)
	at, template := p.Child("jobTemplate", "spec"), s.GetJobTemplate().GetSpec()
	if template == nil {
		return
	}
	checkJobSpec(c, at, template)
	if template.GetSelector() != nil {
		c.Invalid(at.Child("selector"), column.FormatLabelSelector(template.GetSelector()), "`selector` will be auto-generated")
	}
	if template.GetManualSelector() {
		c.Add(field.NotSupported(at.Child("manualSelector"), template.GetManualSelector(), []string{"nil", "false"}))
	}
}

func checkSchedule(c *rules.Checker, p *field.Path, schedule string) {
	if schedule == "" {
		return // It is required.
	}
	if _, err := parseSchedule(schedule); err != nil {
		c.Invalid(p, schedule, err.Error())
	}
	if strings.Contains(schedule, "TZ") {
		c.Invalid(p, schedule, "cannot use TZ or CRON_TZ in schedule, use timeZone field instead")
	}
}

// zonePart is a part of the name of a time zone, between slashes.
var zonePart = regexp.MustCompile(`^[A-Za-z0-9._+][A-Za-z0-9._+-]{0,13}$`)

func checkTimeZone(c *rules.Checker, p *field.Path, s *batchv1.CronJobSpec) {
	if s.TimeZone == nil {
		return
	}
	name := s.GetTimeZone()
	if name == "" {
		c.Invalid(p, name, "timeZone must be nil or non-empty string")
		return
	}
	for part := range strings.SplitSeq(name, "/") {
		if part == "." || part == ".." || !zonePart.MatchString(part) {
			c.Invalid(p, name, "unknown time zone "+name)
			return
		}
	}
	if strings.EqualFold(name, "Local") {
		c.Invalid(p, name, "timeZone must be an explicit time zone as defined in https://www.iana.org/time-zones")
	}
	if _, err := time.LoadLocation(name); err != nil {
		c.Invalid(p, name, err.Error())
	}
}
