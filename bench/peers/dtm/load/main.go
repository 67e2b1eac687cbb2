// A load on DTM: two-phase messages in closed loops, through DTM's own client, each with one branch
// that publishes to RabbitMQ.
//
// It speaks as every load of the bench does: its last argument is a JSON object of settings; it
// prints `ready` when it is connected and warm, waits for a line `go`, runs, prints one JSON line
// and ends. Anything wrong is a sentence on standard error and exit code 1.
package main

import (
	"bufio"
	"encoding/json"
	"fmt"
	"os"
	"time"
)

type settings struct {
	// The DTM server, as its client wants it: http://127.0.0.1:port/api/dtmsvr
	Dtm string `json:"dtm"`
	// amqp://user:password@127.0.0.1:port
	Rabbitmq string `json:"rabbitmq"`
	// classic or quorum
	QueueType string `json:"queueType"`
	// Of the body of every message.
	DataBytes int `json:"dataBytes"`
	// Closed loops: each starts its next transaction when its last one was submitted.
	Concurrency int `json:"concurrency"`
	// No loop starts another transaction after it.
	Seconds float64 `json:"seconds"`
}

type result struct {
	Operations int                  `json:"operations"`
	Seconds    float64              `json:"seconds"`
	LatencyMs  map[string]quantiles `json:"latencyMs"`
	Counts     map[string]int       `json:"counts"`
}

// Connections and pools are open after about this.
const warmUp = time.Second

func main() {
	if err := serve(); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

func serve() error {
	var given settings
	if err := json.Unmarshal([]byte(os.Args[len(os.Args)-1]), &given); err != nil {
		return fmt.Errorf("the settings are not what a load on DTM takes: %w", err)
	}
	said := make(chan struct{})
	go func() {
		if !bufio.NewScanner(os.Stdin).Scan() {
			// The bench ended before it said go.
			os.Exit(1)
		}
		close(said)
	}()

	sink, err := openSink(given)
	if err != nil {
		return err
	}
	load, err := newLoad(given, sink)
	if err != nil {
		return err
	}
	if _, err := load.run(warmUp); err != nil {
		return fmt.Errorf("while warming up: %w", err)
	}
	if err := sink.forget(); err != nil {
		return err
	}
	fmt.Println("ready")
	<-said
	measured, err := load.run(time.Duration(given.Seconds * float64(time.Second)))
	if err != nil {
		return err
	}
	line, err := json.Marshal(measured)
	if err != nil {
		return err
	}
	fmt.Println(string(line))
	return sink.close()
}
