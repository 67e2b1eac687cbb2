package main

import (
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"sync"
	"sync/atomic"
	"time"

	"github.com/lithammer/shortuuid/v3"
	amqp "github.com/rabbitmq/amqp091-go"
)

const (
	routingKey = "registered"
	// A classic queue counts a message at once that it has confirmed, a quorum queue soon after.
	countLimit = 5 * time.Second
	countPoll  = 5 * time.Millisecond
)

// The branch of every transaction: an HTTP server that publishes what DTM sends it, and answers 200
// after RabbitMQ's confirm. DTM delivers at least once, so the same transaction may come again.
//
// One channel is enough: each request waits for its own confirm, so as many publishes are under way
// as there are requests.
type sink struct {
	// For DTM: where to send the message, and where to ask about a transaction without a verdict.
	branchURL string
	checkURL  string

	// Of the topic and of the queue bound to it, which are this load's own.
	name       string
	connection *amqp.Connection
	channel    *amqp.Channel
	returned   atomic.Int64

	mutex sync.Mutex
	// Transactions with a confirmed message.
	confirmed map[string]struct{}
	// Confirmed messages, repeats among them.
	published int
}

func openSink(given settings) (*sink, error) {
	connection, err := amqp.Dial(given.Rabbitmq)
	if err != nil {
		return nil, fmt.Errorf("no connection to RabbitMQ: %w", err)
	}
	channel, err := connection.Channel()
	if err != nil {
		return nil, err
	}
	s := &sink{
		name:       "bench-" + shortuuid.New(),
		connection: connection,
		channel:    channel,
		confirmed:  map[string]struct{}{},
	}
	if err := s.declare(given.QueueType); err != nil {
		return nil, err
	}
	if err := channel.Confirm(false); err != nil {
		return nil, err
	}
	go s.countReturns(channel.NotifyReturn(make(chan amqp.Return, 1)))
	return s, s.listen()
}

// Both durable, as in production.
func (s *sink) declare(queueType string) error {
	if err := s.channel.ExchangeDeclare(s.name, "topic", true, false, false, false, nil); err != nil {
		return err
	}
	arguments := amqp.Table{"x-queue-type": queueType}
	if _, err := s.channel.QueueDeclare(s.name, true, false, false, false, arguments); err != nil {
		return err
	}
	return s.channel.QueueBind(s.name, routingKey, s.name, false, nil)
}

func (s *sink) countReturns(returns <-chan amqp.Return) {
	for range returns {
		s.returned.Add(1)
	}
}

func (s *sink) listen() error {
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return err
	}
	address := "http://" + listener.Addr().String()
	s.branchURL, s.checkURL = address+"/publish", address+"/check"
	routes := http.NewServeMux()
	routes.HandleFunc("/publish", s.publish)
	routes.HandleFunc("/check", func(response http.ResponseWriter, _ *http.Request) {
		// To DTM: not decided yet, ask again. The loop that prepared it submits it or ends the load.
		response.WriteHeader(http.StatusTooEarly)
	})
	// Serves until the process ends.
	go func() { _ = http.Serve(listener, routes) }()
	return nil
}

func (s *sink) publish(response http.ResponseWriter, request *http.Request) {
	data, err := io.ReadAll(request.Body)
	if err == nil {
		err = s.publishConfirmed(request.URL.Query().Get("gid"), data)
	}
	if err != nil {
		// DTM tries again; the load fails when that takes too long.
		http.Error(response, err.Error(), http.StatusInternalServerError)
	}
}

func (s *sink) publishConfirmed(gid string, data []byte) error {
	message := amqp.Publishing{
		DeliveryMode: amqp.Persistent,
		MessageId:    gid,
		ContentType:  "application/json",
		Body:         data,
	}
	// Mandatory: what no queue is bound for comes back, and is confirmed all the same.
	confirm, err := s.channel.PublishWithDeferredConfirm(s.name, routingKey, true, false, message)
	if err != nil {
		return err
	}
	if !confirm.Wait() {
		return errors.New("RabbitMQ refused the message")
	}
	s.mutex.Lock()
	defer s.mutex.Unlock()
	s.confirmed[gid] = struct{}{}
	s.published++
	return nil
}

// How many transactions have a confirmed message, and how many messages that took.
func (s *sink) counts() (transactions, messages int) {
	s.mutex.Lock()
	defer s.mutex.Unlock()
	return len(s.confirmed), s.published
}

// Compares what the queue holds with what was confirmed.
func (s *sink) verify() error {
	if returned := s.returned.Load(); returned > 0 {
		return fmt.Errorf("RabbitMQ returned %d messages", returned)
	}
	for begun := time.Now(); ; time.Sleep(countPoll) {
		queue, err := s.channel.QueueDeclarePassive(s.name, true, false, false, false, nil)
		if err != nil {
			return err
		}
		_, messages := s.counts()
		if queue.Messages == messages {
			return nil
		}
		if time.Since(begun) > countLimit {
			return fmt.Errorf("the queue holds %d messages, %d were confirmed", queue.Messages, messages)
		}
	}
}

// Begins anew with an empty queue. Nothing may be under way.
func (s *sink) forget() error {
	if _, err := s.channel.QueuePurge(s.name, false); err != nil {
		return err
	}
	s.mutex.Lock()
	defer s.mutex.Unlock()
	s.confirmed, s.published = map[string]struct{}{}, 0
	return nil
}

// Deletes the queue, whatever it holds, and its topic.
func (s *sink) close() error {
	_, err := s.channel.QueueDelete(s.name, false, false, false)
	return errors.Join(err, s.channel.ExchangeDelete(s.name, false, false), s.connection.Close())
}
