"""A consumer group of EscrowMQ without its SDK: plain AMQP, in one file.

It does what any consumer has to do, in the order that matters:

1. The queue is durable and bound to the topic, so nothing is missed while this is down.
2. The body is checked against its checksum before anybody looks into it.
3. The work and the note "this group has applied this message" are ONE transaction of its own
   database. Delivery is at least once, and a repeat has the same message id.
4. Only then the receipt, if somebody waits for one, and last the acknowledgement. A crash in
   between brings the message again, and the note tells that it was applied.

What fails comes again, at most ATTEMPTS_MAX times, and then becomes a dead letter.
"""

import argparse
import json
import re
import signal
import sqlite3
import sys
import zlib

import pika
import pika.exceptions

# A handler that fails this often will not succeed by itself.
ATTEMPTS_MAX = 5

# As many as may be out with this process; one at a time is handled.
PREFETCH = 16

# A reply-to is somebody's word: receipts go to queues of this name only.
RECEIPTS_QUEUE = re.compile(r"^escrow:receipts:[A-Za-z0-9-]{1,64}$")

# Both prefixes that the AMQP binding of CloudEvents knows; EscrowMQ writes the first.
CLOUD_EVENTS = ("cloudEvents:", "cloudEvents_")


class Unusable(Exception):
    """The message will never be right, however often it comes."""


def verify_checksum(body, headers):
    """Whether the body is the one that the broker sent."""
    expected = headers.get("escrow-body-crc32")
    if expected is None:
        return "absent"
    if zlib.crc32(body) != expected:
        raise Unusable("the body is not the one that the broker sent: its checksum differs")
    return "verified"


def cloud_events(headers, content_type):
    """The attributes of a CloudEvent, or None where the producer did not ask for them."""
    attributes = {
        name[len(prefix) :]: value
        for name, value in headers.items()
        for prefix in CLOUD_EVENTS
        if name.startswith(prefix)
    }
    return {**attributes, "datacontenttype": content_type} if attributes else None


def open_database(path):
    database = sqlite3.connect(path, isolation_level=None)
    database.execute("pragma journal_mode = wal")
    # An acknowledged message does not come again, so its transaction must survive a power cut.
    database.execute("pragma synchronous = full")
    database.execute(
        """create table if not exists consumed (
             consumer_group text not null,
             message_id text not null,
             consumed_at integer not null default (strftime('%s', 'now')),
             primary key (consumer_group, message_id)
           ) without rowid"""
    )
    database.execute(
        "create table if not exists event (topic text not null, routing_key text, body blob)"
    )
    return database


def apply_once(database, group, message_id, work):
    """'applied', or 'duplicate' when this group has applied the message before."""
    # Immediate: a second process with the same message waits here, and not in the work.
    database.execute("begin immediate")
    try:
        try:
            database.execute(
                "insert into consumed (consumer_group, message_id) values (?, ?)",
                (group, message_id),
            )
        except sqlite3.IntegrityError:
            database.execute("rollback")
            return "duplicate"
        work(database)
        database.execute("commit")
        return "applied"
    except BaseException:
        if database.in_transaction:
            database.execute("rollback")
        raise


def work_on(database, headers, body):
    """Whatever this service is for; everything through the same database."""
    database.execute(
        "insert into event (topic, routing_key, body) values (?, ?, ?)",
        (headers["escrow-topic"], headers["escrow-routing-key"], body),
    )


def send_receipt(channel, properties, headers, receipt):
    """Tells the producer's side, where it waits for this group; returns once RabbitMQ has it."""
    expected = str(headers.get("escrow-expects", "")).split(",")
    queue = properties.reply_to or ""
    if receipt["consumerGroup"] not in expected or not RECEIPTS_QUEUE.match(queue):
        return
    try:
        channel.basic_publish(
            exchange="",
            routing_key=queue,
            body=json.dumps({"receipts": [receipt]}),
            properties=pika.BasicProperties(content_type="application/json", delivery_mode=2),
            mandatory=True,
        )
    except pika.exceptions.UnroutableError:
        # The queue went with the broker's store, and nobody waits any more.
        print(f"{receipt['messageId']}: nobody takes its receipt", file=sys.stderr, flush=True)


def describe(properties, headers, checksum, result):
    """What the message says of itself, as one line of JSON."""
    return json.dumps(
        {
            "id": properties.message_id,
            "transactionId": headers["escrow-transaction-id"],
            "producerGroup": properties.app_id,
            "topic": headers["escrow-topic"],
            "routingKey": headers["escrow-routing-key"],
            "preparedAt": headers["escrow-prepared-at"],
            "contentType": properties.content_type,
            "traceparent": headers.get("traceparent"),
            "cloudEvents": cloud_events(headers, properties.content_type),
            "checksum": checksum,
            "result": result,
        },
        ensure_ascii=False,
    )


def consume(channel, database, group, method, properties, body):
    headers = properties.headers or {}
    receipt = {"messageId": properties.message_id, "consumerGroup": group}
    # Quorum queues count deliveries that were not acknowledged. What comes for the first time may
    # carry the count of a queue it was moved out of, as a dead letter that goes back.
    attempts = headers.get("x-delivery-count", 0) if method.redelivered else 0
    try:
        if properties.message_id is None or "escrow-transaction-id" not in headers:
            raise Unusable("not a message of EscrowMQ")
        checksum = verify_checksum(body, headers)
        result = apply_once(
            database,
            group,
            properties.message_id,
            lambda transaction: work_on(transaction, headers, body),
        )
    except Exception as error:
        print(f"{properties.message_id} failed: {error}", file=sys.stderr, flush=True)
        if not isinstance(error, Unusable) and attempts + 1 < ATTEMPTS_MAX:
            channel.basic_nack(method.delivery_tag, requeue=True)
            return
        # First the word that this group has given up, because compensation may hang on it.
        failed = {"kind": "failed", "attempts": attempts + 1, "cause": str(error)[:500]}
        send_receipt(channel, properties, headers, {**receipt, **failed})
        channel.basic_reject(method.delivery_tag, requeue=False)
        return
    send_receipt(channel, properties, headers, {**receipt, "kind": "consumed"})
    channel.basic_ack(method.delivery_tag)
    print(describe(properties, headers, checksum, result), flush=True)


def declare(channel, topic, group, routing_keys):
    """The queues of this group; what is there already stays."""
    queue = f"{topic}.{group}"
    dead = f"{queue}.dead"
    channel.exchange_declare(topic, "topic", durable=True)
    channel.queue_declare(dead, durable=True, arguments={"x-queue-type": "quorum"})
    channel.queue_declare(
        queue,
        durable=True,
        arguments={
            "x-queue-type": "quorum",
            # For a process that dies over a message each time; one that lives gives up earlier.
            "x-delivery-limit": 4 * ATTEMPTS_MAX,
            "x-dead-letter-exchange": "",
            "x-dead-letter-routing-key": dead,
            # The message stays until the queue of dead letters has confirmed it.
            "x-dead-letter-strategy": "at-least-once",
            "x-overflow": "reject-publish",
        },
    )
    for routing_key in routing_keys:
        channel.queue_bind(queue, topic, routing_key)
    return queue


def main():
    parser = argparse.ArgumentParser(description="Consumes a topic of EscrowMQ.")
    parser.add_argument("--rabbitmq", default="amqp://guest:guest@127.0.0.1:5672/%2F")
    parser.add_argument("--topic", required=True)
    parser.add_argument("--group", required=True)
    parser.add_argument("--routing-key", action="append", help="may be repeated; default: #")
    parser.add_argument("--database", default="consumer.db")
    arguments = parser.parse_args()

    database = open_database(arguments.database)
    connection = pika.BlockingConnection(pika.URLParameters(arguments.rabbitmq))
    channel = connection.channel()
    # From here on a publish returns once RabbitMQ has confirmed it.
    channel.confirm_delivery()
    routing_keys = arguments.routing_key or ["#"]
    queue = declare(channel, arguments.topic, arguments.group, routing_keys)
    channel.basic_qos(prefetch_count=PREFETCH)
    channel.basic_consume(
        queue,
        lambda source, method, properties, body: consume(
            source, database, arguments.group, method, properties, body
        ),
    )

    def stop(*_):
        connection.add_callback_threadsafe(channel.stop_consuming)

    signal.signal(signal.SIGTERM, stop)
    signal.signal(signal.SIGINT, stop)
    print(f"consuming {queue}", file=sys.stderr, flush=True)
    channel.start_consuming()
    connection.close()
    database.close()


if __name__ == "__main__":
    main()
