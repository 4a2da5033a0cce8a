// What runs in the pods of the tests, and as process 1.
//
//	app pause   waits, and collects the exit status of orphans: the process of
//	            a pod's sandbox, and the first one of the node's namespaces.
//	app         a consumer of a token. It answers on port 8080:
//	            /file     the file TOKEN_FILE, as it is now
//	            /seen     each content it has had, with the time in unix
//	                      milliseconds when it was first seen
//	            /env      the variable TOKEN
//	            /api      what TOKEN_API_URL answers to the pod's own token, as
//	                      JSON: status and body; both files of TOKEN_API, the
//	                      folder with token and ca.crt, are read each time
//	            /healthz  200 once there is a token in one of the first two, or
//	                      an API to ask
package main

import (
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/signal"
	"path/filepath"
	"sync"
	"syscall"
	"time"
)

// How often the file is looked at for /seen.
const look = 50 * time.Millisecond

// How long the token API may take.
const patience = 20 * time.Second

type answer struct {
	Status int    `json:"status"`
	Body   string `json:"body"`
}

type sight struct {
	At      int64  `json:"at"`
	Content string `json:"content"`
}

func main() {
	if len(os.Args) > 1 && os.Args[1] == "pause" {
		pause()
		return
	}
	if err := serve(os.Getenv("TOKEN_FILE"), os.Getenv("TOKEN")); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

func pause() {
	signals := make(chan os.Signal, 16)
	signal.Notify(signals, syscall.SIGCHLD, syscall.SIGINT, syscall.SIGTERM)
	for s := range signals {
		if s != syscall.SIGCHLD {
			return
		}
		for {
			pid, err := syscall.Wait4(-1, nil, syscall.WNOHANG, nil)
			if pid <= 0 || err != nil {
				break
			}
		}
	}
}

func serve(file, token string) error {
	var lock sync.Mutex
	seen := []sight{}
	go func() {
		last := ""
		for ; ; time.Sleep(look) {
			content, err := os.ReadFile(file)
			if err != nil || string(content) == last {
				continue
			}
			last = string(content)
			lock.Lock()
			seen = append(seen, sight{time.Now().UnixMilli(), last})
			lock.Unlock()
		}
	}()
	http.HandleFunc("/file", func(w http.ResponseWriter, _ *http.Request) {
		content, err := os.ReadFile(file)
		if err != nil {
			http.Error(w, err.Error(), http.StatusNotFound)
			return
		}
		w.Write(content)
	})
	http.HandleFunc("/seen", func(w http.ResponseWriter, _ *http.Request) {
		lock.Lock()
		defer lock.Unlock()
		json.NewEncoder(w).Encode(seen)
	})
	http.HandleFunc("/env", func(w http.ResponseWriter, _ *http.Request) {
		fmt.Fprint(w, token)
	})
	http.HandleFunc("/api", func(w http.ResponseWriter, _ *http.Request) {
		got, err := ask(os.Getenv("TOKEN_API_URL"), os.Getenv("TOKEN_API"))
		if err != nil {
			http.Error(w, err.Error(), http.StatusBadGateway)
			return
		}
		json.NewEncoder(w).Encode(got)
	})
	http.HandleFunc("/healthz", func(w http.ResponseWriter, _ *http.Request) {
		if _, err := os.ReadFile(file); err != nil && token == "" && os.Getenv("TOKEN_API_URL") == "" {
			http.Error(w, "no token", http.StatusServiceUnavailable)
		}
	})
	return http.ListenAndServe(":8080", nil)
}

// Asks the token API as a program in a pod does.
func ask(url, folder string) (*answer, error) {
	token, err := os.ReadFile(filepath.Join(folder, "token"))
	if err != nil {
		return nil, err
	}
	ca, err := os.ReadFile(filepath.Join(folder, "ca.crt"))
	if err != nil {
		return nil, err
	}
	roots := x509.NewCertPool()
	if !roots.AppendCertsFromPEM(ca) {
		return nil, fmt.Errorf("no certificate in ca.crt")
	}
	request, err := http.NewRequest("GET", url, nil)
	if err != nil {
		return nil, err
	}
	request.Header.Set("Authorization", "Bearer "+string(token))
	client := http.Client{
		Timeout:   patience,
		Transport: &http.Transport{TLSClientConfig: &tls.Config{RootCAs: roots}, DisableKeepAlives: true},
	}
	response, err := client.Do(request)
	if err != nil {
		return nil, err
	}
	defer response.Body.Close()
	body, err := io.ReadAll(io.LimitReader(response.Body, 1<<20))
	return &answer{response.StatusCode, string(body)}, err
}
