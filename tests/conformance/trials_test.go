package conformance_test

import (
	"path"
	"slices"
	"strings"
)

// trial is a manifest, or several that belong together, with what its page of the documentation
// says of it.
type trial struct {
	// files are relative to the corpus for podinfo, and to its examples of the documentation for all
	// others.
	files []string
	// namespace is the one that the manifest names; a new one when empty.
	namespace string
	// before are commands that the page has its reader run first.
	before [][]string
	// setup is a manifest of ours with what the page takes for granted.
	setup string
	// first are checked before the files are applied.
	first  []check
	checks []check
	// gap says why it does not work yet; empty when it works.
	gap string
}

// Things that pages take for granted.
const (
	// caller is a pod from which services are called.
	caller = `{apiVersion: v1, kind: Pod, metadata: {name: caller}, spec: {terminationGracePeriodSeconds: 0, containers: [{name: caller, image: busybox, command: [sleep, "3600"]}]}}`
	// myApp is behind the services of the pages on dual-stack.
	myApp = caller + `
---
{apiVersion: v1, kind: Pod, metadata: {name: my-app, labels: {app: MyApp}}, spec: {terminationGracePeriodSeconds: 0, containers: [{name: nginx, image: "nginx:1.14.2"}]}}`
)

// allTrials are those of every file.
func allTrials() []trial { return slices.Concat(trials, policyTrials) }

// name is the trial's name among tests.
func (t trial) name() string {
	name := strings.TrimSuffix(t.files[0], ".yaml")
	for _, file := range t.files[1:] {
		name += "+" + strings.TrimSuffix(path.Base(file), ".yaml")
	}
	return name
}

func command(words ...string) []string { return words }

var (
	specialConfig = command("create", "configmap", "special-config", "--from-literal=SPECIAL_LEVEL=very", "--from-literal=SPECIAL_TYPE=charm", "--from-literal=special.how=very")
	envConfig     = command("create", "configmap", "env-config", "--from-literal=log_level=INFO")
	backendUser   = command("create", "secret", "generic", "backend-user", "--from-literal=backend-username=backend-admin")
	databaseUser  = command("create", "secret", "generic", "db-user", "--from-literal=db-username=db-admin")
	testSecret    = command("create", "secret", "generic", "test-secret", "--from-literal=username=my-app", "--from-literal=password=39528$vdg7Jb")
	nginxSecret   = command("create", "secret", "generic", "nginxsecret", "--from-literal=tls.crt=a", "--from-literal=tls.key=b")
	nginxConfig   = command("create", "configmap", "nginxconfigmap", "--from-literal=default.conf=server {}")
)

var trials = []trial{
	// Pods that print and end.
	{files: []string{"pods/commands.yaml"}, checks: []check{phase("command-demo", "Succeeded"), logs("command-demo", "command-demo\ntcp://")},
		gap: "there is no service kubernetes, and so no KUBERNETES_PORT"},
	{files: []string{"pods/pod-configmap-env-var-valueFrom.yaml"}, before: [][]string{specialConfig}, checks: []check{phase("dapi-test-pod", "Succeeded"), logs("dapi-test-pod", "very charm")}},
	{files: []string{"pods/pod-configmap-envFrom.yaml", "configmap/configmap-multikeys.yaml"}, namespace: "default",
		checks: []check{phase("dapi-test-pod", "Succeeded"), logs("dapi-test-pod", "SPECIAL_LEVEL=very", "SPECIAL_TYPE=charm")}},
	{files: []string{"pods/pod-configmap-volume-specific-key.yaml"}, before: [][]string{specialConfig}, checks: []check{phase("dapi-test-pod", "Succeeded"), logs("dapi-test-pod", "very")}},
	{files: []string{"pods/pod-configmap-volume.yaml"}, before: [][]string{specialConfig}, checks: []check{phase("dapi-test-pod", "Succeeded"), logs("dapi-test-pod", "SPECIAL_LEVEL\nSPECIAL_TYPE")}},
	{files: []string{"pods/pod-multiple-configmap-env-variable.yaml"}, before: [][]string{specialConfig, envConfig},
		checks: []check{phase("dapi-test-pod", "Succeeded"), logs("dapi-test-pod", "SPECIAL_LEVEL_KEY=very", "LOG_LEVEL=INFO")}},
	{files: []string{"pods/pod-single-configmap-env-variable.yaml"}, before: [][]string{specialConfig},
		checks: []check{phase("dapi-test-pod", "Succeeded"), logs("dapi-test-pod", "SPECIAL_LEVEL_KEY=very")}},
	{files: []string{"service/networking/hostaliases-pod.yaml"}, checks: []check{phase("hostaliases-pod", "Succeeded"),
		logs("hostaliases-pod", "127.0.0.1\tfoo.local\tbar.local", "10.1.2.3\tfoo.remote\tbar.remote")}},
	{files: []string{"debug/termination.yaml"}, checks: []check{terminationMessage("termination-demo", "Sleep expired")}},

	// Pods that go on.
	{files: []string{"pods/simple-pod.yaml"}, setup: caller, checks: []check{ready("nginx"), callsPod("nginx", 80, "Welcome to nginx")}},
	{files: []string{"pods/init-containers.yaml"}, checks: []check{status("init-demo", "Init:Error", "Init:CrashLoopBackOff")}}, // the page's own server is not reached
	{files: []string{"pods/lifecycle-events.yaml"}, checks: []check{ready("lifecycle-demo"), runs("lifecycle-demo", "", "cat /usr/share/message", "Hello from the postStart handler"), deletes("lifecycle-demo")}},
	{files: []string{"pods/pod-nginx-specific-node.yaml"}, checks: []check{phase("nginx", "Pending"), onNode("nginx", "foo-node")}},
	{files: []string{"pods/pod-nginx.yaml"}, checks: []check{unschedulable("nginx", "node"), labelled("disktype=ssd"), ready("nginx")}},
	{files: []string{"pods/pod-rs.yaml", "controllers/frontend.yaml"}, checks: []check{replicaSet("frontend", 3), count("tier=frontend", 3)}},
	{files: []string{"pods/pod-with-toleration.yaml"}, checks: []check{ready("nginx")}},
	{files: []string{"pods/private-reg-pod.yaml"}, checks: []check{waiting("private-reg", "InvalidImageName")}},
	{files: []string{"pods/two-container-pod.yaml"}, checks: []check{terminated("two-containers", "debian-container", 0),
		runs("two-containers", "nginx-container", "wget -qO- localhost", "Hello from the debian container")}},
	{files: []string{"pods/share-process-namespace.yaml"}, checks: []check{ready("nginx"), runs("nginx", "shell", "ps", "nginx")}},
	{files: []string{"pods/config/redis-pod.yaml", "pods/config/example-redis-config.yaml"}, checks: []check{ready("redis"),
		runs("redis", "", "redis-cli CONFIG GET maxmemory", "2mb"),
		runs("redis", "", "redis-cli CONFIG GET maxmemory-policy", "allkeys-lru")}},
	{files: []string{"pods/storage/redis.yaml"}, checks: []check{ready("redis"), runs("redis", "", "echo Hello > /data/redis/test-file; cat /data/redis/test-file", "Hello"),
		runs("redis", "", "kill 1; echo killed", "killed"), restarted("redis"), ready("redis"), runs("redis", "", "cat /data/redis/test-file", "Hello")}},
	{files: []string{"pods/storage/projected.yaml"}, before: [][]string{command("create", "secret", "generic", "user", "--from-literal=username=admin"),
		command("create", "secret", "generic", "pass", "--from-literal=password=1f2d1e2e67df")},
		checks: []check{ready("test-projected-volume"), runs("test-projected-volume", "", "ls /projected-volume", "password\nusername")}},
	{files: []string{"pods/pod-projected-svc-token.yaml"}, setup: `{apiVersion: v1, kind: ServiceAccount, metadata: {name: build-robot}}`,
		checks: []check{ready("nginx"), runs("nginx", "", `echo "$(cut -d. -f2 /var/run/secrets/tokens/vault-token | tr _- /+)==" | base64 -d 2>/dev/null; true`, `"aud":["vault"]`, ":build-robot")}},

	// Values from the pod itself and from secrets.
	{files: []string{"pods/inject/dapi-envars-container.yaml"}, checks: []check{logs("dapi-envars-resourcefieldref", "1\n1\n33554432\n67108864")}},
	{files: []string{"pods/inject/dapi-envars-pod.yaml"}, checks: []check{logs("dapi-envars-fieldref", "node-", "dapi-envars-fieldref", "10.244.", "default")}},
	{files: []string{"pods/inject/dapi-volume-resources.yaml"}, checks: []check{ready("kubernetes-downwardapi-volume-example-2"),
		runs("kubernetes-downwardapi-volume-example-2", "", "cd /etc/podinfo; for f in cpu_limit cpu_request mem_limit mem_request; do cat $f; echo; done", "250\n125\n64\n32")}},
	{files: []string{"pods/inject/dapi-volume.yaml"}, checks: []check{logs("kubernetes-downwardapi-volume-example", `cluster="test-cluster1"`, `rack="rack-22"`, `zone="us-est-coast"`, `build="two"`, `builder="john-doe"`)}},
	{files: []string{"pods/inject/dependent-envars.yaml"}, checks: []check{logs("dependent-envars-demo",
		"UNCHANGED_REFERENCE=$(PROTOCOL)://172.17.0.1:80", "SERVICE_ADDRESS=https://172.17.0.1:80", "ESCAPED_REFERENCE=$(PROTOCOL)://172.17.0.1:80")}},
	{files: []string{"pods/inject/envars.yaml"}, checks: []check{ready("envar-demo"), runs("envar-demo", "", "printenv", "DEMO_GREETING=Hello from the environment", "DEMO_FAREWELL=Such a sweet sorrow")}},
	{files: []string{"pods/inject/pod-multiple-secret-env-variable.yaml"}, before: [][]string{backendUser, databaseUser},
		checks: []check{ready("envvars-multiple-secrets"), runs("envvars-multiple-secrets", "", "env", "DB_USERNAME=db-admin", "BACKEND_USERNAME=backend-admin")}},
	{files: []string{"pods/inject/pod-secret-envFrom.yaml"}, before: [][]string{testSecret}, checks: []check{ready("envfrom-secret"), runs("envfrom-secret", "", "env", "username=my-app", "password=39528$vdg7Jb")}},
	{files: []string{"pods/inject/pod-single-secret-env-variable.yaml"}, before: [][]string{backendUser}, checks: []check{ready("env-single-secret"), runs("env-single-secret", "", "echo $SECRET_USERNAME", "backend-admin")}},
	{files: []string{"pods/inject/secret-envars-pod.yaml", "pods/inject/secret.yaml"}, checks: []check{ready("secret-envars-test-pod"), runs("secret-envars-test-pod", "", "env", "SECRET_USERNAME=my-app", "SECRET_PASSWORD=39528$vdg7Jb")}},
	{files: []string{"pods/inject/secret-pod.yaml", "pods/inject/secret.yaml"}, checks: []check{ready("secret-test-pod"),
		runs("secret-test-pod", "", "ls /etc/secret-volume; cat /etc/secret-volume/username; echo; cat /etc/secret-volume/password", "password\nusername\nmy-app\n39528$vdg7Jb")}},

	// Probes.
	{files: []string{"pods/probe/exec-liveness.yaml"}, checks: []check{ready("liveness-exec"), restarted("liveness-exec"), event("liveness-exec", "Unhealthy", "can't open '/tmp/healthy'"), event("liveness-exec", "Killing", "liveness")}},
	{files: []string{"pods/probe/http-liveness.yaml"}, checks: []check{ready("liveness-http"), restarted("liveness-http"), event("liveness-http", "Unhealthy", "500")}},
	{files: []string{"pods/probe/pod-with-http-healthcheck.yaml"}, checks: []check{ready("pod-with-http-healthcheck"), event("pod-with-http-healthcheck", "Unhealthy", "404")}},
	{files: []string{"pods/probe/pod-with-tcp-socket-healthcheck.yaml"}, checks: []check{ready("pod-with-tcp-socket-healthcheck")}},
	{files: []string{"pods/probe/tcp-liveness-readiness.yaml"}, checks: []check{phase("goproxy", "Running"), ready("goproxy")}},

	// Resources.
	{files: []string{"pods/qos/qos-pod.yaml"}, namespace: "qos-example", checks: []check{ready("qos-demo"), qos("qos-demo", "Guaranteed")}},
	{files: []string{"pods/qos/qos-pod-2.yaml"}, namespace: "qos-example", checks: []check{ready("qos-demo-2"), qos("qos-demo-2", "Burstable")}},
	{files: []string{"pods/qos/qos-pod-3.yaml"}, namespace: "qos-example", checks: []check{ready("qos-demo-3"), qos("qos-demo-3", "BestEffort")}},
	{files: []string{"pods/qos/qos-pod-4.yaml"}, namespace: "qos-example", checks: []check{ready("qos-demo-4"), qos("qos-demo-4", "Burstable")}},
	{files: []string{"pods/resource/cpu-request-limit.yaml"}, namespace: "cpu-example", checks: []check{ready("cpu-demo")}},
	{files: []string{"pods/resource/cpu-request-limit-2.yaml"}, namespace: "cpu-example", checks: []check{unschedulable("cpu-demo-2", "Insufficient cpu")}},
	{files: []string{"pods/resource/memory-request-limit.yaml"}, namespace: "mem-example", checks: []check{ready("memory-demo"), logs("memory-demo", "holding 150 MiB")}},
	{files: []string{"pods/resource/memory-request-limit-2.yaml"}, namespace: "mem-example", checks: []check{outOfMemory("memory-demo-2"), status("memory-demo-2", "OOMKilled", "CrashLoopBackOff")}},
	{files: []string{"pods/resource/memory-request-limit-3.yaml"}, namespace: "mem-example", checks: []check{unschedulable("memory-demo-3", "Insufficient memory")}},
	{files: []string{"pods/resource/extended-resource-pod.yaml"}, checks: []check{unschedulable("extended-resource-demo", "Insufficient example.com/dongle")}},
	{files: []string{"pods/resource/extended-resource-pod-2.yaml"}, checks: []check{unschedulable("extended-resource-demo-2", "Insufficient example.com/dongle")}},

	// Security contexts.
	{files: []string{"pods/security/security-context.yaml"}, checks: []check{ready("security-context-demo"),
		runs("security-context-demo", "", "id", "uid=1000", "gid=3000", "2000"), runs("security-context-demo", "", "cd /data/demo; echo hello > testfile; ls -ln", "1000", "2000")}},
	{files: []string{"pods/security/security-context-2.yaml"}, checks: []check{ready("security-context-demo-2"), runs("security-context-demo-2", "", "id -u; grep NoNewPrivs /proc/1/status", "2000", "NoNewPrivs:\t1")}},
	{files: []string{"pods/security/security-context-3.yaml"}, checks: []check{ready("security-context-demo-3"), runs("security-context-demo-3", "", "grep CapPrm /proc/1/status", "00000000a80425fb")}},
	{files: []string{"pods/security/security-context-4.yaml"}, checks: []check{ready("security-context-demo-4"), runs("security-context-demo-4", "", "grep CapPrm /proc/1/status", "00000000aa0435fb")}},
	{files: []string{"pods/security/hello-apparmor.yaml"}, checks: []check{ready("hello-apparmor"), logs("hello-apparmor", "Hello AppArmor!")}},
	{files: []string{"pods/security/seccomp/ga/default-pod.yaml"}, checks: []check{ready("audit-pod"), logsNothingWrong("audit-pod"), runs("audit-pod", "", "grep Seccomp: /proc/1/status", "Seccomp:\t2")}},

	// Names.
	{files: []string{"service/networking/custom-dns.yaml"}, namespace: "default", checks: []check{ready("dns-example"),
		runs("dns-example", "", "cat /etc/resolv.conf", "nameserver 1.2.3.4", "search ns1.svc.cluster-domain.example my.dns.search.suffix", "options ndots:2 edns0")}},
	{files: []string{"application/shell-demo.yaml"}, checks: []check{ready("shell-demo"), runs("shell-demo", "", "echo 'Hello shell demo' > /usr/share/nginx/html/index.html; wget -qO- localhost", "Hello shell demo")}},

	// Deployments and services.
	{files: []string{"service/access/backend-deployment.yaml", "service/access/backend-service.yaml", "service/access/frontend-deployment.yaml", "service/access/frontend-service.yaml"},
		setup: caller, checks: []check{available("backend", 3), available("frontend", 1), calls("http://hello", `{"message":"Hello"}`), calls("http://frontend", `{"message":"Hello"}`)}},
	{files: []string{"service/access/hello-application.yaml"}, setup: caller, before: [][]string{}, checks: []check{available("hello-world", 2)}},
	{files: []string{"service/load-balancer-example.yaml"}, checks: []check{available("hello-world", 5)}},
	{files: []string{"service/nginx-service.yaml", "application/deployment.yaml"}, setup: caller, checks: []check{available("nginx-deployment", 2), calls("http://nginx-service:8000", "Welcome to nginx")}},
	{files: []string{"service/networking/run-my-nginx.yaml", "service/networking/nginx-svc.yaml"}, setup: caller, checks: []check{available("my-nginx", 2), calls("http://my-nginx", "Welcome to nginx"), endpoints("my-nginx", 2)}},
	{files: []string{"service/networking/nginx-secure-app.yaml", "service/networking/curlpod.yaml"}, setup: caller, before: [][]string{nginxSecret, nginxConfig},
		checks: []check{available("my-nginx", 1), available("curl-deployment", 1), calls("http://my-nginx:8080", "Welcome to nginx")}},
	{files: []string{"service/networking/dual-stack-default-svc.yaml"}, setup: myApp, checks: []check{families("my-service", "IPv4"), answers("my-service")}},
	{files: []string{"service/networking/dual-stack-preferred-svc.yaml"}, setup: myApp, checks: []check{families("my-service", "IPv4", "IPv6"), answers("my-service")}},
	{files: []string{"service/networking/dual-stack-preferred-ipfamilies-svc.yaml"}, setup: myApp, checks: []check{families("my-service", "IPv6", "IPv4"), answers("my-service")}},
	{files: []string{"service/networking/dual-stack-ipfamilies-ipv6.yaml"}, setup: myApp, checks: []check{families("my-service", "IPv6"), answers("my-service")}},
	{files: []string{"service/networking/dual-stack-prefer-ipv6-lb-svc.yaml"}, setup: myApp, checks: []check{families("my-service", "IPv6", "IPv4"), answers("my-service")}},
	{files: []string{"application/deployment.yaml", "application/deployment-update.yaml", "application/deployment-scale.yaml"}, checks: []check{available("nginx-deployment", 4), count("app=nginx", 4)}},
	{files: []string{"application/simple_deployment.yaml", "application/update_deployment.yaml"}, checks: []check{available("nginx-deployment", 1)}},
	{files: []string{"application/deployment-patch.yaml"}, checks: []check{available("patch-demo", 2),
		cli("patched", "patch", "deployment", "patch-demo", "-p", `{"spec": {"template": {"spec": {"terminationGracePeriodSeconds": 3}}}}`), available("patch-demo", 2)}},
	{files: []string{"application/deployment-retainkeys.yaml"}, checks: []check{available("retainkeys-demo", 1)}},
	{files: []string{"application/nginx-app.yaml"}, setup: caller, checks: []check{available("my-nginx", 3), calls("http://my-nginx-svc", "Welcome to nginx")}},
	{files: []string{"application/nginx/nginx-deployment.yaml", "application/nginx/nginx-svc.yaml"}, setup: caller, checks: []check{available("my-nginx", 3), calls("http://my-nginx-svc", "Welcome to nginx")}},
	{files: []string{"application/nginx-with-request.yaml"}, checks: []check{available("nginx-deployment", 2)}},
	{files: []string{"application/php-apache.yaml"}, setup: caller, checks: []check{available("php-apache", 1), calls("http://php-apache", "OK!")}},
	{files: []string{"application/ssa/nginx-deployment.yaml"}, checks: []check{available("nginx-deployment", 3)}},
	{files: []string{"application/guestbook/redis-leader-deployment.yaml", "application/guestbook/redis-leader-service.yaml", "application/guestbook/redis-follower-deployment.yaml",
		"application/guestbook/redis-follower-service.yaml", "application/guestbook/frontend-deployment.yaml", "application/guestbook/frontend-service.yaml"},
		setup: caller, checks: []check{available("redis-leader", 1), available("redis-follower", 2), available("frontend", 3), calls("http://frontend", "Guestbook"),
			runs("caller", "", "redis-cli -h redis-leader PING", "PONG")}},
	{files: []string{"controllers/frontend.yaml"}, checks: []check{replicaSet("frontend", 3)}},
	{files: []string{"controllers/nginx-deployment.yaml"}, checks: []check{available("nginx-deployment", 3), cli("successfully rolled out", "rollout", "status", "deployment/nginx-deployment")}},
	{files: []string{"controllers/replicaset.yaml"}, checks: []check{replicaSet("my-repset", 3), deletesOwner("replicaset/my-repset", "pod-is-for=garbage-collection-example")}},

	// Elsewhere in the documentation.
	{files: []string{"debug/counter-pod.yaml"}, checks: []check{logs("counter", "0: ", "1: ", "2: ")}},
	{files: []string{"admin/logging/two-files-counter-pod-streaming-sidecar.yaml"}, checks: []check{ready("counter"), cli("0: ", "logs", "counter", "count-log-1"), cli("INFO 0", "logs", "counter", "-c", "count-log-2")}},
	{files: []string{"admin/resource/limit-range-pod-1.yaml"}, checks: []check{ready("busybox1"), cli("hello from cnt02", "logs", "busybox1", "-c", "busybox-cnt02")}},
	{files: []string{"admin/sched/pod1.yaml", "admin/sched/pod2.yaml", "admin/sched/pod3.yaml"}, checks: []check{ready("no-annotation"), ready("annotation-default-scheduler"), phase("annotation-second-scheduler", "Pending")}},
	{files: []string{"admin/snowflake-deployment.yaml"}, checks: []check{available("snowflake", 2)}},

	// An application.
	{files: []string{"podinfo/kustomize/deployment.yaml", "podinfo/kustomize/service.yaml"}, setup: caller,
		checks: []check{available("podinfo", 1), calls("http://podinfo:9898", `"hostname": "podinfo-`)}},
	{files: []string{"podinfo/deploy/webapp/common/namespace.yaml", "podinfo/deploy/webapp/common/service-account.yaml",
		"podinfo/deploy/webapp/backend/deployment.yaml", "podinfo/deploy/webapp/backend/service.yaml",
		"podinfo/deploy/webapp/frontend/deployment.yaml", "podinfo/deploy/webapp/frontend/service.yaml"}, namespace: "webapp", setup: caller,
		checks: []check{available("backend", 1), available("frontend", 1), calls("http://frontend", `"hostname": "frontend-`),
			calls("http://backend.webapp.svc.cluster.local:9898", `"hostname": "backend-`)}},
}
