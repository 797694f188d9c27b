package daemon

import (
	"bytes"
	"strings"
	"testing"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil"
	"go.uber.org/zap"
	"go.uber.org/zap/zapcore"

	"github.com/xebec-project/xebec/internal/metrics"
)

// TestLogIsBounded logs the same failure again and again between lines that have to be there.
func TestLogIsBounded(t *testing.T) {
	for _, level := range []string{"info", "debug"} {
		var out bytes.Buffer
		log, leftOut, err := newLogger(LogConfig{Level: level, Format: "json"}, zapcore.AddSync(&out))
		if err != nil {
			t.Fatal(err)
		}
		log = log.With(zap.String("service", "test"))
		const lines = 5000
		for range lines {
			log.Warn("Etcd does not answer", zap.String("error", "too late"))
			log.Info(metrics.MessageCall, zap.String("method", "Create"))
			log.Debug("A detail")
		}
		log.Warn("Something else")
		text := out.String()
		count := func(message string) int { return strings.Count(text, `"msg":"`+message+`"`) }
		if n := count("Etcd does not answer"); n < logFirst || n > logFirst+lines/logThereafter {
			t.Errorf("%s: %d of %d lines of one failure", level, n, lines)
		}
		if n := count(metrics.MessageCall); n != lines {
			t.Errorf("%s: %d of %d lines of the audit", level, n, lines)
		}
		if n := count("Something else"); n != 1 {
			t.Errorf("%s: another failure is there %d times", level, n)
		}
		details := count("A detail")
		if level == "info" && details != 0 || level == "debug" && (details < debugFirst || details > debugFirst+lines/debugThereafter) {
			t.Errorf("%s: %d lines of one detail", level, details)
		}
		if n := count("Lines of the same message are left out of the log"); n != 1 {
			t.Errorf("%s: the log says %d times that lines are left out", level, n)
		}
		if n := strings.Count(text, `"service":"test"`); n < lines {
			t.Errorf("%s: %d lines have the logger's fields", level, n)
		}
		missing := lines - count("Etcd does not answer")
		if level == "debug" {
			missing += lines - details
		}
		counter := leftOut.(*prometheus.CounterVec)
		counted := testutil.ToFloat64(counter.WithLabelValues("warn")) + testutil.ToFloat64(counter.WithLabelValues("debug"))
		if int(counted) != missing {
			t.Errorf("%s: %v lines are counted, %d are missing", level, counted, missing)
		}
	}
}
