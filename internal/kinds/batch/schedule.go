package batch

import (
	"fmt"
	"time"

	"github.com/robfig/cron/v3"

	batchv1 "github.com/xebec-project/xebec/proto/xebec/batch/v1"
)

// Schedule is the times at which a CronJob creates Jobs.
type Schedule interface {
	// Next returns the first time after t, the zero time when there is none within five years.
	Next(t time.Time) time.Time
}

// ParseSchedule parses the schedule of a CronJob in its time zone.
func ParseSchedule(s *batchv1.CronJobSpec) (Schedule, error) {
	zone, err := Zone(s)
	if err != nil {
		return nil, err
	}
	schedule, err := parseSchedule(s.GetSchedule())
	if err != nil {
		return nil, err
	}
	return inZone{schedule, zone}, nil
}

// Zone returns the time zone of a CronJob's schedule, that of this process by default.
func Zone(s *batchv1.CronJobSpec) (*time.Location, error) {
	if s.TimeZone == nil {
		return time.Local, nil
	}
	return time.LoadLocation(s.GetTimeZone())
}

// inZone is a schedule in a time zone. Times of one in no zone of its own are in the zone of the
// time that Next is asked about.
type inZone struct {
	schedule cron.Schedule
	zone     *time.Location
}

// Next implements Schedule.
func (z inZone) Next(t time.Time) time.Time { return z.schedule.Next(t.In(z.zone)) }

// parseSchedule parses a schedule. The parser panics for some texts.
func parseSchedule(text string) (schedule cron.Schedule, err error) {
	defer func() {
		if p := recover(); p != nil {
			err = fmt.Errorf("invalid schedule format: %v", p)
		}
	}()
	return cron.ParseStandard(text)
}
