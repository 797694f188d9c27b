package daemon

import (
	"fmt"
	"time"

	"go.uber.org/zap"
	"go.uber.org/zap/zapcore"
)

// Debug lines of one text beyond the first debugFirst in a second are thinned to every debugThereafter-th. Lines at
// Info and above are never dropped: among them are those of an audit.
const (
	debugFirst      = 100
	debugThereafter = 100
)

// newLogger returns a logger that writes a line per entry.
func newLogger(cfg LogConfig, out zapcore.WriteSyncer) (*zap.Logger, error) {
	level, err := zapcore.ParseLevel(cfg.Level)
	if err != nil {
		return nil, fmt.Errorf("log level: %w", err)
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
	out = zapcore.Lock(out)
	core := zapcore.NewCore(encoder, out, max(level, zapcore.InfoLevel))
	if level < zapcore.InfoLevel {
		debug := zapcore.NewCore(encoder.Clone(), out, zap.LevelEnablerFunc(func(l zapcore.Level) bool {
			return l >= level && l < zapcore.InfoLevel
		}))
		core = zapcore.NewTee(core, zapcore.NewSamplerWithOptions(debug, time.Second, debugFirst, debugThereafter))
	}
	return zap.New(core, zap.AddCaller(), zap.AddStacktrace(zapcore.DPanicLevel)), nil
}
