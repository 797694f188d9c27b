// Package bpf holds Xebec's eBPF programs: their C sources, the compiled objects, which are
// committed so that building the agent needs no clang, and the Go types of their maps. Package
// datapath loads them and writes their maps.
//
// Regenerate with "go generate ./agent/bpf"; it needs clang 14, llvm-strip and
// the headers of libbpf and of Linux.
package bpf

//go:generate go run github.com/cilium/ebpf/cmd/bpf2go -cc clang-14 -strip llvm-strip-14 -target bpfel -go-package bpf -cflags "-O2 -g -Wall -Werror -I/usr/include/x86_64-linux-gnu" SocketLB socketlb.c
//go:generate go run github.com/cilium/ebpf/cmd/bpf2go -cc clang-14 -strip llvm-strip-14 -target bpfel -go-package bpf -cflags "-O2 -g -Wall -Werror -I/usr/include/x86_64-linux-gnu" SocketLB6 socketlb6.c
//go:generate go run github.com/cilium/ebpf/cmd/bpf2go -cc clang-14 -strip llvm-strip-14 -target bpfel -go-package bpf -cflags "-O2 -g -Wall -Werror -I/usr/include/x86_64-linux-gnu" StalePeers stalepeers.c
//go:generate go run github.com/cilium/ebpf/cmd/bpf2go -cc clang-14 -strip llvm-strip-14 -target bpfel -go-package bpf -cflags "-O2 -g -Wall -Werror -I/usr/include/x86_64-linux-gnu" StalePeers6 stalepeers6.c
//go:generate go run github.com/cilium/ebpf/cmd/bpf2go -cc clang-14 -strip llvm-strip-14 -target bpfel -go-package bpf -cflags "-O2 -g -Wall -Werror -I/usr/include/x86_64-linux-gnu" -type dropped Uplink uplink.c
//go:generate go run github.com/cilium/ebpf/cmd/bpf2go -cc clang-14 -strip llvm-strip-14 -target bpfel -go-package bpf -cflags "-O2 -g -Wall -Werror -I/usr/include/x86_64-linux-gnu" Uplink6 uplink6.c
//go:generate go run github.com/cilium/ebpf/cmd/bpf2go -cc clang-14 -strip llvm-strip-14 -target bpfel -go-package bpf -cflags "-O2 -g -Wall -Werror -I/usr/include/x86_64-linux-gnu" Overlay overlay.c
//go:generate go run github.com/cilium/ebpf/cmd/bpf2go -cc clang-14 -strip llvm-strip-14 -target bpfel -go-package bpf -cflags "-O2 -g -Wall -Werror -I/usr/include/x86_64-linux-gnu" -type policy_drop Policy policy.c
