-- PostgreSQL, database `orders`, as its owner. The application is `shopkeeper`; `coordinator` is
-- Mainstay's own account, which ends what the application has prepared.
CREATE ROLE shopkeeper LOGIN;
CREATE ROLE coordinator LOGIN;
GRANT shopkeeper TO coordinator;

CREATE TABLE purchase (gid varchar(128) PRIMARY KEY, customer text NOT NULL, sku text NOT NULL, count int NOT NULL,
  cents bigint NOT NULL, state text NOT NULL CHECK (state IN ('open', 'paid', 'cancelled')));
GRANT SELECT, INSERT, UPDATE ON purchase TO shopkeeper;

-- The barrier: each operation of a branch takes effect once.
CREATE TABLE mainstay_barrier (mode varchar(16) NOT NULL, gid varchar(128) COLLATE "C" NOT NULL,
  branch varchar(64) COLLATE "C" NOT NULL, op varchar(16) NOT NULL, seq varchar(4) NOT NULL, reason varchar(16) NOT NULL,
  written_at timestamptz NOT NULL DEFAULT clock_timestamp(), PRIMARY KEY (gid, branch, op, seq));
GRANT SELECT, INSERT ON mainstay_barrier TO shopkeeper;

-- Two-phase commits: receipts of branches, and how far the coordinator's log was.
CREATE TABLE mainstay_receipt (gid varchar(128) COLLATE "C" NOT NULL, branch varchar(64) COLLATE "C" NOT NULL, kind char(4) NOT NULL CHECK (kind IN ('done','tomb')),
  written_by varchar(64) NOT NULL, written_at timestamptz NOT NULL DEFAULT clock_timestamp(), PRIMARY KEY (gid, branch));
CREATE INDEX mainstay_receipt_written_at ON mainstay_receipt (written_at);
CREATE TABLE mainstay_coordinator (cluster char(8) PRIMARY KEY, log_id char(36) NOT NULL, sequence bigint NOT NULL, written_at timestamptz NOT NULL);
GRANT SELECT, INSERT ON mainstay_receipt TO shopkeeper;
GRANT SELECT, INSERT, DELETE ON mainstay_receipt TO coordinator;
GRANT SELECT, INSERT, UPDATE ON mainstay_coordinator TO coordinator;
