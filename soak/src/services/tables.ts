/*
 * The tables that the services of the soak keep for the checker, beside those of the SDKs. None has
 * a key that would hide a mistake: an effect that is applied twice must be there twice.
 */

const ID = 'char(36) character set ascii collate ascii_bin not null';
const SHA256 = 'char(64) character set ascii collate ascii_bin not null';

export const PRODUCER_TABLES = [
  // Written before anything else of a job, so that a producer that is started again goes on.
  `create table if not exists attempt (
    job int not null primary key,
    kind varchar(16) not null
  ) engine = InnoDB`,
  // Written inside the local transaction: what is here must arrive, and nothing else may.
  `create table if not exists business (
    id int not null auto_increment primary key,
    transaction_id ${ID},
    message_number tinyint unsigned not null,
    sha256 ${SHA256},
    key business_transaction (transaction_id)
  ) engine = InnoDB`,
  // Written before a plain send, which is repeated until it was acknowledged.
  `create table if not exists send (
    transaction_id ${ID} primary key,
    job int not null,
    sha256 ${SHA256},
    acknowledged tinyint not null default 0
  ) engine = InnoDB`,
];

export const CONSUMER_TABLES = [
  // Written inside the transaction of `once`.
  `create table if not exists effect (
    id int not null auto_increment primary key,
    transaction_id ${ID},
    message_number tinyint unsigned not null,
    sha256 ${SHA256},
    key effect_transaction (transaction_id)
  ) engine = InnoDB`,
];

/**
 * In the broker's own database: every change of state, written by the database itself in the
 * transaction that makes it, so that no code of ours can forget one.
 */
export const STORE_TABLES = [
  `create table if not exists soak_edge (
    entry bigint not null auto_increment primary key,
    transaction_id binary(16) not null,
    state_from varchar(16) not null,
    state_to varchar(16) not null,
    decision_from varchar(16) not null,
    decision_to varchar(16) not null,
    at datetime(3) not null default current_timestamp(3),
    key soak_edge_transaction (transaction_id)
  ) engine = InnoDB`,
  `create trigger soak_accepted after insert on escrow_transaction for each row
    insert into soak_edge (transaction_id, state_from, state_to, decision_from, decision_to)
    values (new.id, '', new.state, '', new.decision)`,
  `create trigger soak_moved after update on escrow_transaction for each row
    if old.state <> new.state or old.decision <> new.decision then
      insert into soak_edge (transaction_id, state_from, state_to, decision_from, decision_to)
      values (new.id, old.state, new.state, old.decision, new.decision);
    end if`,
];
