package column_test

import (
	"testing"
	"time"

	"github.com/xebec-project/xebec/internal/kinds/column"
	"github.com/xebec-project/xebec/internal/kinds/kindtest"
)

func TestHumanDuration(t *testing.T) {
	const day = 24 * time.Hour
	for d, want := range map[time.Duration]string{
		-3 * time.Second: "<invalid>", -time.Second: "0s", 0: "0s", 119 * time.Second: "119s", 2 * time.Minute: "2m",
		5*time.Minute + 30*time.Second: "5m30s", 10*time.Minute + time.Second: "10m", 179 * time.Minute: "179m",
		3 * time.Hour: "3h", 3*time.Hour + 12*time.Minute: "3h12m", 9*time.Hour + time.Minute: "9h", 47 * time.Hour: "47h",
		2 * day: "2d", 5*day + 3*time.Hour: "5d3h", 8*day + time.Hour: "8d", 729 * day: "729d", 730 * day: "2y",
		770 * day: "2y40d", 8 * 365 * day: "8y", 9*365*day + day: "9y",
	} {
		if got := column.HumanDuration(d); got != want {
			t.Errorf("HumanDuration(%v) = %q, want %q", d, got, want)
		}
	}
	if got := column.Age(nil, kindtest.Now); got != "<unknown>" {
		t.Errorf("age of nothing = %q", got)
	}
}
