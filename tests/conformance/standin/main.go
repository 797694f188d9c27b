// Command standin takes the place of the programs in the images that the corpus' manifests name:
// under each of their names it does the little that the documentation shows of them. It is one
// static program, linked into the images under all of its names.
package main

import (
	"bufio"
	"cmp"
	"flag"
	"fmt"
	"io"
	"log"
	"net"
	"net/http"
	"os"
	"os/signal"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"
)

// roles are the programs by name.
var roles = map[string]func(args []string){
	"apache2":        func([]string) { answer(":80", func() string { return "OK!" }) },
	"gb-frontend":    func([]string) { answer(":80", func() string { return "Guestbook" }) },
	"goproxy":        func([]string) { accept(":8080") },
	"hello-app":      helloApp,
	"hello-front":    helloFront,
	"hello-go":       func([]string) { answer(":80", func() string { return `{"message":"Hello"}` }) },
	"http-echo":      httpEcho,
	"nginx":          nginx,
	"node-hello":     func([]string) { answer(":8080", func() string { return "Hello Kubernetes!" }) },
	"pause":          func([]string) { wait() },
	"podcli":         podcli,
	"podinfo":        podinfo,
	"redis-server":   redis,
	"serve-hostname": func([]string) { answer(":9376", hostname) },
	"server":         liveness,
	"stress":         stress,
	"printenv":       printenv,
	"redis-cli":      redisCLI,
	"wget":           wget,
}

func main() {
	log.SetFlags(0)
	role := roles[filepath.Base(os.Args[0])]
	if role == nil {
		log.Fatalf("no program is called %s", os.Args[0])
	}
	role(os.Args[1:])
}

// wait returns when the process gets a signal to end, as these programs do immediately.
func wait() {
	signals := make(chan os.Signal, 1)
	signal.Notify(signals, syscall.SIGTERM, syscall.SIGINT, syscall.SIGQUIT)
	<-signals
}

// serve answers HTTP until the process gets a signal to end.
func serve(address string, handler http.Handler) {
	go func() {
		err := http.ListenAndServe(address, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			fmt.Printf("%s %s %s\n", r.Method, r.URL.Path, r.UserAgent())
			handler.ServeHTTP(w, r)
		}))
		log.Fatal(err)
	}()
	wait()
}

func answer(address string, text func() string) {
	serve(address, http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { fmt.Fprintln(w, text()) }))
}

// accept takes connections and says nothing.
func accept(address string) {
	listener, err := net.Listen("tcp", address)
	if err != nil {
		log.Fatal(err)
	}
	go func() {
		for {
			conn, err := listener.Accept()
			if err != nil {
				log.Fatal(err)
			}
			conn.Close()
		}
	}()
	wait()
}

func hostname() string {
	name, err := os.Hostname()
	if err != nil {
		log.Fatal(err)
	}
	return name
}

func helloApp([]string) {
	answer(":"+cmp.Or(os.Getenv("PORT"), "8080"), func() string {
		return "Hello, world!\nVersion: " + os.Getenv("VERSION") + "\nHostname: " + hostname()
	})
}

// helloFront passes calls on to the service hello, by its name.
func helloFront([]string) {
	client := http.Client{Timeout: 3 * time.Second}
	serve(":80", http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		resp, err := client.Get("http://hello" + r.URL.Path)
		if err != nil {
			http.Error(w, err.Error(), http.StatusBadGateway)
			return
		}
		defer resp.Body.Close()
		w.WriteHeader(resp.StatusCode)
		_, _ = io.Copy(w, resp.Body)
	}))
}

func httpEcho(args []string) {
	flags := flag.NewFlagSet("http-echo", flag.ExitOnError)
	text := flags.String("text", "", "what to answer")
	listen := flags.String("listen", ":5678", "where to listen")
	_ = flags.Parse(args)
	answer(*listen, func() string { return *text })
}

const nginxPid = "/run/nginx.pid"

// nginx serves files; "nginx -s quit" ends the one that serves.
func nginx(args []string) {
	if len(args) == 2 && args[0] == "-s" {
		pid, err := os.ReadFile(nginxPid)
		if err != nil {
			log.Fatal(err)
		}
		number, err := strconv.Atoi(strings.TrimSpace(string(pid)))
		if err != nil {
			log.Fatal(err)
		}
		if err := syscall.Kill(number, syscall.SIGQUIT); err != nil {
			log.Fatal(err)
		}
		return
	}
	if err := os.WriteFile(nginxPid, []byte(strconv.Itoa(os.Getpid())), 0o644); err != nil {
		log.Fatal(err)
	}
	serve(":80", http.FileServer(http.Dir("/usr/share/nginx/html")))
}

func podcli(args []string) {
	if len(args) != 3 || args[0] != "check" || args[1] != "http" {
		log.Fatalf("cannot check %q", args)
	}
	resp, err := (&http.Client{Timeout: 3 * time.Second}).Get("http://" + args[2])
	if err != nil {
		log.Fatal(err)
	}
	resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		log.Fatal(resp.Status)
	}
}

func podinfo(args []string) {
	port := "9898"
	for _, a := range args {
		if value, ok := strings.CutPrefix(a, "--port="); ok {
			port = value
		}
	}
	answer(":"+port, func() string { return `{"hostname": "` + hostname() + `"}` })
}

// redis speaks enough of the protocol to be asked for a setting of its configuration file.
func redis(args []string) {
	settings := map[string]string{}
	if len(args) > 0 {
		file, err := os.ReadFile(args[0])
		if err != nil {
			log.Fatal(err)
		}
		for line := range strings.Lines(string(file)) {
			if key, value, ok := strings.Cut(strings.TrimSpace(line), " "); ok {
				settings[key] = value
			}
		}
	}
	listener, err := net.Listen("tcp", ":6379")
	if err != nil {
		log.Fatal(err)
	}
	fmt.Println("Ready to accept connections")
	go func() {
		for {
			conn, err := listener.Accept()
			if err != nil {
				log.Fatal(err)
			}
			go func() {
				defer conn.Close()
				lines := bufio.NewScanner(conn)
				for lines.Scan() {
					words := strings.Fields(lines.Text())
					switch {
					case len(words) == 3 && strings.EqualFold(words[0], "CONFIG"):
						value := settings[words[2]]
						fmt.Fprintf(conn, "*2\r\n$%d\r\n%s\r\n$%d\r\n%s\r\n", len(words[2]), words[2], len(value), value)
					case len(words) == 1 && strings.EqualFold(words[0], "QUIT"):
						return
					default:
						fmt.Fprint(conn, "+PONG\r\n")
					}
				}
			}()
		}
	}()
	wait()
}

// liveness is healthy for ten seconds.
func liveness([]string) {
	began := time.Now()
	serve(":8080", http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		if since := time.Since(began); since > 10*time.Second {
			http.Error(w, fmt.Sprintf("error: %v", since.Seconds()), http.StatusInternalServerError)
			return
		}
		fmt.Fprintln(w, "ok")
	}))
}

// stress takes memory, and holds it; the processors of those who test are left alone.
func stress(args []string) {
	for i, a := range args {
		if a != "--vm-bytes" || i+1 == len(args) {
			continue
		}
		mebibytes, err := strconv.Atoi(strings.TrimSuffix(args[i+1], "M"))
		if err != nil {
			log.Fatal(err)
		}
		held := make([]byte, mebibytes<<20)
		for page := 0; page < len(held); page += os.Getpagesize() {
			held[page] = 1
		}
		fmt.Printf("holding %d MiB\n", len(held)>>20)
	}
	wait()
}

// printenv is here since not every busybox has it.
func printenv(names []string) {
	if len(names) == 0 {
		fmt.Println(strings.Join(os.Environ(), "\n"))
		return
	}
	code := 0
	for _, name := range names {
		value, ok := os.LookupEnv(name)
		if !ok {
			code = 1
			continue
		}
		fmt.Println(value)
	}
	os.Exit(code)
}

// wget takes the place of busybox', which crashes on names when it is linked statically with glibc.
func wget(args []string) {
	flags := flag.NewFlagSet("wget", flag.ExitOnError)
	output := flags.String("O", "", "file to write; - for standard output")
	flags.BoolFunc("qO-", "print the answer", func(string) error { *output = "-"; return nil })
	timeout := flags.Int("T", 10, "seconds to wait")
	_ = flags.Parse(args)
	url := flags.Arg(0)
	if !strings.Contains(url, "://") {
		url = "http://" + url
	}
	resp, err := (&http.Client{Timeout: time.Duration(*timeout) * time.Second}).Get(url)
	if err != nil {
		log.Fatal(err)
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		log.Fatal(resp.Status)
	}
	to := os.Stdout
	if *output != "-" {
		if to, err = os.Create(*output); err != nil {
			log.Fatal(err)
		}
	}
	if _, err := io.Copy(to, resp.Body); err != nil {
		log.Fatal(err)
	}
}

// redisCLI sends one command to a server and prints the lines of its answer that are no lengths.
func redisCLI(args []string) {
	host := "localhost"
	if len(args) > 1 && args[0] == "-h" {
		host, args = args[1], args[2:]
	}
	conn, err := net.DialTimeout("tcp", net.JoinHostPort(host, "6379"), 3*time.Second)
	if err != nil {
		log.Fatal(err)
	}
	defer conn.Close()
	fmt.Fprintf(conn, "%s\r\nQUIT\r\n", strings.Join(args, " "))
	for lines := bufio.NewScanner(conn); lines.Scan(); {
		if line := lines.Text(); !strings.HasPrefix(line, "*") && !strings.HasPrefix(line, "$") {
			fmt.Println(strings.TrimPrefix(line, "+"))
		}
	}
}
