package probe

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/health"
	"google.golang.org/grpc/health/grpc_health_v1"

	corev1 "github.com/xebec-project/xebec/proto/xebec/core/v1"
	metav1 "github.com/xebec-project/xebec/proto/xebec/meta/v1"
)

func TestCheck(t *testing.T) {
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		switch {
		case r.URL.Path == "/ok" && r.Host == "web.test" && r.Header.Get("X-Probe") == "1":
		case r.URL.Path == "/moved":
			http.Redirect(w, r, "/nowhere", http.StatusFound)
		case r.URL.Path == "/slow":
			<-r.Context().Done()
		default:
			http.Error(w, "not well", http.StatusServiceUnavailable)
		}
	}))
	defer srv.Close()
	lis, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	g, h := grpc.NewServer(), health.NewServer()
	grpc_health_v1.RegisterHealthServer(g, h)
	h.SetServingStatus("sick", grpc_health_v1.HealthCheckResponse_NOT_SERVING)
	go g.Serve(lis)
	defer g.Stop()

	port := int32(srv.Listener.Addr().(*net.TCPAddr).Port)
	grpcPort := int32(lis.Addr().(*net.TCPAddr).Port)
	target := Target{
		Host:      "127.0.0.1",
		Container: &corev1.Container{Name: "c", Ports: []*corev1.ContainerPort{{Name: "http", ContainerPort: port}}},
		Exec: func(_ context.Context, command []string) (int, []byte, error) {
			switch command[0] {
			case "good":
				return 0, nil, nil
			case "bad":
				return 3, []byte("no disk\n"), nil
			}
			return 0, nil, errors.New("no such command")
		},
	}
	named, number := &metav1.IntOrString{Type: 1, StrVal: "http"}, &metav1.IntOrString{IntVal: port}
	get := func(path string, port *metav1.IntOrString, headers ...*corev1.HTTPHeader) *corev1.ProbeHandler {
		return &corev1.ProbeHandler{HttpGet: &corev1.HTTPGetAction{Path: path, Port: port, HttpHeaders: headers}}
	}
	sick := "sick"
	for name, c := range map[string]struct {
		handler *corev1.ProbeHandler
		want    string
	}{
		"http":         {get("/ok", named, &corev1.HTTPHeader{Name: "Host", Value: "web.test"}, &corev1.HTTPHeader{Name: "X-Probe", Value: "1"}), ""},
		"redirect":     {get("moved", number), ""},
		"bad status":   {get("/ok", number), "HTTP status 503: not well"},
		"slow":         {get("/slow", number), "deadline exceeded"},
		"unknown port": {get("/ok", &metav1.IntOrString{Type: 1, StrVal: "metrics"}), `no port "metrics"`},
		"tcp":          {&corev1.ProbeHandler{TcpSocket: &corev1.TCPSocketAction{Port: number}}, ""},
		"tcp refused":  {&corev1.ProbeHandler{TcpSocket: &corev1.TCPSocketAction{Port: &metav1.IntOrString{IntVal: 1}}}, "refused"},
		"exec":         {&corev1.ProbeHandler{Exec: &corev1.ExecAction{Command: []string{"good"}}}, ""},
		"exec fails":   {&corev1.ProbeHandler{Exec: &corev1.ExecAction{Command: []string{"bad"}}}, "exited with 3: no disk"},
		"no exec":      {&corev1.ProbeHandler{Exec: &corev1.ExecAction{Command: []string{"x"}}}, "no such command"},
		"grpc":         {&corev1.ProbeHandler{Grpc: &corev1.GRPCAction{Port: grpcPort}}, ""},
		"grpc sick":    {&corev1.ProbeHandler{Grpc: &corev1.GRPCAction{Port: grpcPort, Service: &sick}}, "NOT_SERVING"},
		"nothing":      {&corev1.ProbeHandler{}, "missing probe handler"},
	} {
		t.Run(name, func(t *testing.T) {
			limit := time.Minute
			if name == "slow" {
				limit = 100 * time.Millisecond
			}
			ctx, cancel := context.WithTimeout(t.Context(), limit)
			defer cancel()
			err := Check(ctx, c.handler, target)
			if (err == nil) != (c.want == "") || err != nil && !strings.Contains(err.Error(), c.want) {
				t.Errorf("got %v, want %q", err, c.want)
			}
		})
	}
}

func TestLoopThresholds(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithCancel(t.Context())
		answers := "..x.xx.xxx....x"
		var (
			i    int
			got  []string
			zero = time.Now()
		)
		Loop{
			Probe:     &corev1.Probe{InitialDelaySeconds: 5, PeriodSeconds: 2, FailureThreshold: 3, SuccessThreshold: 2},
			StartedAt: zero,
			Check: func(context.Context) error {
				defer func() { i++ }()
				if i == len(answers)-1 {
					cancel()
				}
				if answers[i] == 'x' {
					return errors.New("down")
				}
				return nil
			},
			Changed: func(ok bool, _ error) { got = append(got, fmt.Sprintf("%v at %v", ok, time.Since(zero))) },
		}.Run(ctx)
		want := "[true at 7s false at 23s true at 27s]"
		if fmt.Sprint(got) != want {
			t.Errorf("changes %v, want %s", got, want)
		}
	})
}
