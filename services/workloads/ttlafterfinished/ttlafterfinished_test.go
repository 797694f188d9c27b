package ttlafterfinished

import (
	"testing"
	"time"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/timestamppb"

	batchv1 "github.com/xebec-project/xebec/proto/xebec/batch/v1"
	metav1 "github.com/xebec-project/xebec/proto/xebec/meta/v1"
)

func TestTimeLeft(t *testing.T) {
	end := time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)
	job := func(ttl *int32, typ string) *batchv1.Job {
		return &batchv1.Job{Metadata: &metav1.ObjectMeta{}, Spec: &batchv1.JobSpec{TtlSecondsAfterFinished: ttl}, Status: &batchv1.JobStatus{
			Conditions: []*batchv1.JobCondition{{Type: typ, Status: "True", LastTransitionTime: timestamppb.New(end)}},
		}}
	}
	deleted := job(proto.Int32(0), "Failed")
	deleted.Metadata.DeletionTimestamp = timestamppb.New(end)
	for name, tt := range map[string]struct {
		job     *batchv1.Job
		left    time.Duration
		expires bool
	}{
		"kept":            {job(nil, "Complete"), 0, false},
		"not ended":       {job(proto.Int32(5), "FailureTarget"), 0, false},
		"later":           {job(proto.Int32(5), "Complete"), 3 * time.Second, true},
		"now":             {job(proto.Int32(0), "Failed"), -2 * time.Second, true},
		"deleted already": {deleted, 0, false},
	} {
		if left, expires := timeLeft(tt.job, end.Add(2*time.Second)); left != tt.left || expires != tt.expires {
			t.Errorf("%s: %v, %t; want %v, %t", name, left, expires, tt.left, tt.expires)
		}
	}
}
