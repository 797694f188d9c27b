package daemon

import (
	"fmt"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"go.uber.org/zap"
	"go.uber.org/zap/zapcore"
	"golang.org/x/time/rate"

	"github.com/xebec-project/xebec/internal/metrics"
)

// Of one message at one level the log holds the first logFirst lines in logTick and after those
// every logThereafter-th: when everything fails at once, the log tells what fails and does not fill
// the disk. An audit's lines are all there. So many debug lines are there as one asks for them to
// see.
const (
	logTick       = 10 * time.Second
	logFirst      = 200
	logThereafter = 1000

	debugFirst      = 1000
	debugThereafter = 1000
)

// newLogger returns a logger that writes a line per entry. The collector counts the lines that it
// left out.
func newLogger(cfg LogConfig, out zapcore.WriteSyncer) (*zap.Logger, prometheus.Collector, error) {
	level, err := zapcore.ParseLevel(cfg.Level)
	if err != nil {
		return nil, nil, fmt.Errorf("log level: %w", err)
	}
	encoding := zap.NewProductionEncoderConfig()
	encoding.TimeKey = "time"
	encoding.EncodeTime = zapcore.RFC3339NanoTimeEncoder
	encoding.EncodeDuration = zapcore.SecondsDurationEncoder
	encoder := zapcore.NewJSONEncoder(encoding)
	if cfg.Format == "console" {
		encoding.EncodeDuration = zapcore.StringDurationEncoder
		encoding.EncodeLevel = zapcore.CapitalLevelEncoder
		encoder = zapcore.NewConsoleEncoder(encoding)
	}
	core := zapcore.NewCore(encoder, zapcore.Lock(out), level)
	left := newLeftOut(core)
	sampled := zapcore.NewTee(
		zapcore.NewSamplerWithOptions(
			only{core, func(l zapcore.Level) bool { return l >= zapcore.InfoLevel }},
			logTick,
			logFirst,
			logThereafter,
			left.hook(),
		),
		zapcore.NewSamplerWithOptions(
			only{core, func(l zapcore.Level) bool { return l < zapcore.InfoLevel }},
			logTick,
			debugFirst,
			debugThereafter,
			left.hook(),
		),
	)
	return zap.New(audit{sampled, core}, zap.AddCaller(), zap.AddStacktrace(zapcore.DPanicLevel)), left.lines, nil
}

// only is a core for some levels.
type only struct {
	zapcore.Core
	levels func(zapcore.Level) bool
}

func (o only) Enabled(l zapcore.Level) bool { return o.levels(l) && o.Core.Enabled(l) }

func (o only) With(fields []zapcore.Field) zapcore.Core { return only{o.Core.With(fields), o.levels} }

func (o only) Check(entry zapcore.Entry, checked *zapcore.CheckedEntry) *zapcore.CheckedEntry {
	if !o.levels(entry.Level) {
		return checked
	}
	return o.Core.Check(entry, checked)
}

// audit is a core that samples everything but the lines of calls that succeeded.
type audit struct {
	zapcore.Core
	whole zapcore.Core
}

func (a audit) With(fields []zapcore.Field) zapcore.Core {
	return audit{a.Core.With(fields), a.whole.With(fields)}
}

func (a audit) Check(entry zapcore.Entry, checked *zapcore.CheckedEntry) *zapcore.CheckedEntry {
	if entry.Message == metrics.MessageCall {
		return a.whole.Check(entry, checked)
	}
	return a.Core.Check(entry, checked)
}

// leftOut counts the lines that a log leaves out, and says so in the log.
type leftOut struct {
	core  zapcore.Core
	lines *prometheus.CounterVec
	since atomic.Int64
	tell  rate.Sometimes
}

func newLeftOut(core zapcore.Core) *leftOut {
	return &leftOut{
		core: core,
		lines: prometheus.NewCounterVec(
			prometheus.CounterOpts{
				Name: metrics.LogLinesLeftOut,
				Help: "Lines that were not logged because there were too many of the same message.",
			},
			[]string{metrics.LabelLevel},
		),
		tell: rate.Sometimes{Interval: logTick},
	}
}

func (l *leftOut) hook() zapcore.SamplerOption {
	return zapcore.SamplerHook(func(entry zapcore.Entry, decision zapcore.SamplingDecision) {
		if decision&zapcore.LogDropped == 0 {
			return
		}
		l.lines.WithLabelValues(entry.Level.String()).Inc()
		l.since.Add(1)
		l.tell.Do(func() {
			note := zapcore.Entry{
				Level:      zapcore.WarnLevel,
				Time:       time.Now(),
				LoggerName: entry.LoggerName,
				Message:    "Lines of the same message are left out of the log",
			}
			_ = l.core.Write(note, []zapcore.Field{zap.String(metrics.KeyMessage, entry.Message), zap.Int64(metrics.KeyUnlogged, l.since.Swap(0))})
		})
	})
}
