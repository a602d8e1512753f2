-- MariaDB: databases `stock` and `payment` of one server, as root. The application is `shopkeeper`;
-- `coordinator` is Mainstay's own account, which ends what the application has prepared.
CREATE USER shopkeeper, coordinator;

CREATE DATABASE stock;
CREATE TABLE stock.article (sku varchar(64) PRIMARY KEY, available int NOT NULL, reserved int NOT NULL DEFAULT 0) ENGINE=InnoDB;
INSERT INTO stock.article (sku, available) VALUES ('book', 100);

CREATE DATABASE payment;
CREATE TABLE payment.account (name varchar(64) PRIMARY KEY, cents bigint NOT NULL, reserved bigint NOT NULL DEFAULT 0) ENGINE=InnoDB;
INSERT INTO payment.account (name, cents) VALUES ('ann', 20000), ('bob', 500), ('shop', 0);

GRANT SELECT, INSERT, UPDATE ON stock.* TO shopkeeper;
GRANT SELECT, INSERT, UPDATE ON payment.* TO shopkeeper;

-- The barrier of either service: each operation of a branch takes effect once.
CREATE TABLE stock.mainstay_barrier (mode varchar(16) NOT NULL, gid varchar(128) CHARACTER SET utf8mb4 COLLATE utf8mb4_bin NOT NULL,
  branch varchar(64) CHARACTER SET ascii COLLATE ascii_bin NOT NULL, op varchar(16) CHARACTER SET ascii COLLATE ascii_bin NOT NULL,
  seq varchar(4) CHARACTER SET ascii COLLATE ascii_bin NOT NULL, reason varchar(16) NOT NULL,
  written_at timestamp(6) NOT NULL DEFAULT current_timestamp(6), PRIMARY KEY (gid, branch, op, seq)) ENGINE=InnoDB;
CREATE TABLE payment.mainstay_barrier LIKE stock.mainstay_barrier;

-- Two-phase commits: receipts of branches, and how far the coordinator's log was. They lie in the
-- database that the coordinator's URL names; one branch may write to both.
USE payment;
CREATE TABLE mainstay_receipt (gid varchar(128) CHARACTER SET utf8mb4 COLLATE utf8mb4_bin NOT NULL, branch varchar(64) CHARACTER SET ascii COLLATE ascii_bin NOT NULL,
  kind enum('done','tomb') NOT NULL, written_by varchar(64) NOT NULL, written_at timestamp(6) NOT NULL DEFAULT current_timestamp(6), PRIMARY KEY (gid, branch), KEY (written_at)) ENGINE=InnoDB;
CREATE TABLE mainstay_coordinator (cluster char(8) PRIMARY KEY, log_id char(36) NOT NULL, sequence bigint NOT NULL, written_at timestamp(6) NOT NULL) ENGINE=InnoDB;
GRANT SELECT, INSERT, DELETE ON mainstay_receipt TO coordinator;
GRANT SELECT, INSERT, UPDATE ON mainstay_coordinator TO coordinator;
