package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"strings"
	"sync/atomic"
	"time"

	"github.com/dtm-labs/dtm/client/dtmcli"
	"github.com/lithammer/shortuuid/v3"
)

const (
	// More deadlocks than this in a row are something else.
	attemptsMax = 10
	// DTM tries a failed branch again after 10 s at the earliest: this is for three such attempts.
	drainLimit = 40 * time.Second
	// Short against a run of seconds, and rare enough to cost nothing.
	drainPoll = time.Millisecond
	// Each asks MariaDB, which is still at work for DTM.
	settlePoll = 50 * time.Millisecond
)

type load struct {
	settings
	sink *sink
	// The body of every message, as JSON.
	data json.RawMessage
	// Calls that DTM refused, and that were made again.
	retries atomic.Int64
}

// The latencies of one loop, or of all.
type latencies struct {
	prepare []time.Duration
	submit  []time.Duration
}

func newLoad(given settings, sink *sink) (*load, error) {
	const around = len(`{"text":""}`)
	if given.DataBytes < around {
		return nil, fmt.Errorf("a body of %d bytes is no JSON object with a text in it", given.DataBytes)
	}
	text := strings.Repeat("x", given.DataBytes-around)
	transport := http.DefaultTransport.(*http.Transport).Clone()
	// As in the server: one idle connection per CPU and one more is what the client would keep.
	transport.MaxIdleConns = given.Concurrency
	transport.MaxIdleConnsPerHost = given.Concurrency
	dtmcli.GetRestyClient().SetTransport(transport)
	return &load{settings: given, sink: sink, data: json.RawMessage(`{"text":"` + text + `"}`)}, nil
}

// Runs the loops, and waits until every transaction that they submitted is in RabbitMQ.
func (l *load) run(duration time.Duration) (*result, error) {
	before, _ := l.sink.counts()
	l.retries.Store(0)
	begun := time.Now()
	measured, err := l.loops(begun.Add(duration))
	if err != nil {
		return nil, err
	}
	operations := len(measured.submit)
	if err := l.drain(before + operations); err != nil {
		return nil, err
	}
	seconds := time.Since(begun).Seconds()
	// DTM writes its successes down after RabbitMQ's confirm. That is no part of the time, but of the
	// CPU time of a transaction, and it must not disturb whatever runs next.
	if err := l.settle(); err != nil {
		return nil, err
	}
	if err := l.sink.verify(); err != nil {
		return nil, err
	}
	transactions, publishes := l.sink.counts()
	return &result{
		Operations: operations,
		Seconds:    seconds,
		LatencyMs: map[string]quantiles{
			"prepare": quantilesOf(measured.prepare),
			"submit":  quantilesOf(measured.submit),
		},
		Counts: map[string]int{"retries": int(l.retries.Load()), "repeats": publishes - transactions},
	}, nil
}

func (l *load) loops(end time.Time) (latencies, error) {
	type ended struct {
		latencies
		err error
	}
	results := make(chan ended)
	for range l.Concurrency {
		go func() {
			measured, err := l.loop(end)
			results <- ended{measured, err}
		}()
	}
	var all latencies
	var failures []error
	for range l.Concurrency {
		one := <-results
		all.prepare = append(all.prepare, one.prepare...)
		all.submit = append(all.submit, one.submit...)
		if one.err != nil {
			failures = append(failures, one.err)
		}
	}
	if len(failures) > 0 {
		return all, fmt.Errorf("%d of %d loops failed, the first with: %w",
			len(failures), l.Concurrency, failures[0])
	}
	return all, nil
}

func (l *load) loop(end time.Time) (latencies, error) {
	var measured latencies
	for time.Now().Before(end) {
		message := dtmcli.NewMsg(l.Dtm, shortuuid.New()).Add(l.sink.branchURL, l.data)
		begun := time.Now()
		if err := l.retry(func() error { return message.Prepare(l.sink.checkURL) }); err != nil {
			return measured, fmt.Errorf("DTM did not prepare %s: %w", message.Gid, err)
		}
		prepared := time.Now()
		if err := l.retry(message.Submit); err != nil {
			return measured, fmt.Errorf("DTM did not submit %s: %w", message.Gid, err)
		}
		measured.prepare = append(measured.prepare, prepared.Sub(begun))
		measured.submit = append(measured.submit, time.Since(prepared))
	}
	return measured, nil
}

// DTM answers a deadlock in its database with an error. Both calls may be repeated, so a careful
// producer does; the time it takes counts.
func (l *load) retry(call func() error) error {
	err := call()
	for attempt := 1; err != nil && attempt < attemptsMax; attempt++ {
		l.retries.Add(1)
		err = call()
	}
	return err
}

// Waits until RabbitMQ has confirmed that many different transactions.
func (l *load) drain(expected int) error {
	for begun := time.Now(); ; time.Sleep(drainPoll) {
		confirmed, _ := l.sink.counts()
		if confirmed == expected {
			return nil
		}
		if confirmed > expected {
			return fmt.Errorf("%d transactions were confirmed, %d were submitted", confirmed, expected)
		}
		if time.Since(begun) > drainLimit {
			return fmt.Errorf("%d of %d transactions were not confirmed within %s",
				expected-confirmed, expected, drainLimit)
		}
	}
}

// Waits until DTM has no transaction left to do anything for.
func (l *load) settle() error {
	for begun := time.Now(); ; time.Sleep(settlePoll) {
		var found struct {
			Transactions []json.RawMessage `json:"transactions"`
		}
		response, err := dtmcli.GetRestyClient().R().SetResult(&found).
			SetQueryParams(map[string]string{"status": "submitted", "limit": "1"}).Get(l.Dtm + "/all")
		if err != nil {
			return err
		}
		if response.IsError() {
			return fmt.Errorf("DTM did not list its transactions: %s", response)
		}
		if len(found.Transactions) == 0 {
			return nil
		}
		if time.Since(begun) > drainLimit {
			return errors.New("DTM still has submitted transactions, all of which were confirmed")
		}
	}
}
