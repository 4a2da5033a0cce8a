// forward LISTEN DIAL copies connections from one address to another. An
// address with a slash is a Unix socket: those are found by path, not by
// network namespace, so a pair of forwarders is a door into the node's
// namespace that needs no interface or rule outside of it. A program of its
// own: it costs 3 MB of memory.
package main

import (
	"io"
	"log"
	"net"
	"os"
	"strings"
)

func main() {
	args := os.Args[1:]
	if len(args) != 2 {
		log.Fatal("usage: forward LISTEN DIAL")
	}
	if network(args[0]) == "unix" {
		os.Remove(args[0])
	}
	listener, err := net.Listen(network(args[0]), args[0])
	if err != nil {
		log.Fatal(err)
	}
	for {
		connection, err := listener.Accept()
		if err != nil {
			log.Fatal(err)
		}
		go forward(connection, args[1])
	}
}

func network(address string) string {
	if strings.Contains(address, "/") {
		return "unix"
	}
	return "tcp"
}

func forward(in net.Conn, address string) {
	defer in.Close()
	out, err := net.Dial(network(address), address)
	if err != nil {
		log.Print(err)
		return
	}
	defer out.Close()
	done := make(chan struct{}, 2)
	pipe := func(to, from net.Conn) {
		io.Copy(to, from)
		if half, ok := to.(interface{ CloseWrite() error }); ok {
			half.CloseWrite()
		}
		done <- struct{}{}
	}
	go pipe(out, in)
	go pipe(in, out)
	<-done
	<-done
}
