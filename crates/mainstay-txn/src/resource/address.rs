//! Where a database is.

use std::fmt;
use std::path::PathBuf;

use percent_encoding::percent_decode_str;

use super::Kind;

/// Where a database is, and as whom it is spoken to. There is no password in it: that lies in a
/// file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Address {
    /// Whose protocol is spoken.
    pub kind: Kind,
    /// Role or user.
    pub user: String,
    /// The server.
    pub host: Host,
    /// Database on it, in which the tables of receipts are.
    pub database: String,
}

/// A server.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Host {
    /// Over the network.
    Tcp {
        /// Name or address.
        host: String,
        /// Its port.
        port: u16,
    },
    /// On this machine: the folder of `PostgreSQL`'s socket, the socket of `MariaDB`.
    Socket(PathBuf),
}

/// A text that is no address. It is not shown: there may be a password in it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct AddressInvalid(&'static str);

impl Address {
    /// Reads `postgresql://user@host:port/database` or `mariadb://user@host:port/database`. The
    /// port may be left out; a host that is a path, `%2Frun%2Fpostgresql`, is a socket.
    ///
    /// # Errors
    ///
    /// [`AddressInvalid`], which says what is allowed.
    pub fn parse(kind: Kind, url: &str) -> Result<Self, AddressInvalid> {
        let (scheme, rest) = url.split_once("://").ok_or(AddressInvalid(SHAPE))?;
        let fits = match kind {
            Kind::Postgres => matches!(scheme, "postgresql" | "postgres"),
            Kind::MariaDb => matches!(scheme, "mariadb" | "mysql"),
        };
        if !fits {
            return Err(AddressInvalid("must begin with what its `kind` is called"));
        }
        let (user, rest) = rest.split_once('@').ok_or(AddressInvalid(SHAPE))?;
        if user.contains(':') {
            return Err(AddressInvalid("must hold no password: put it into `password_file`"));
        }
        let (place, database) = rest.split_once('/').ok_or(AddressInvalid(SHAPE))?;
        if database.contains(['?', '/', '#']) || rest.contains('@') {
            return Err(AddressInvalid(SHAPE));
        }
        let [user, database] = [decoded(user)?, decoded(database)?];
        Ok(Self { kind, user, host: Host::parse(kind, place)?, database })
    }
}

impl Host {
    fn parse(kind: Kind, place: &str) -> Result<Self, AddressInvalid> {
        let decoded = decoded(place)?;
        if decoded.starts_with('/') {
            return Ok(Self::Socket(decoded.into()));
        }
        let (host, port) = match place.rsplit_once(':') {
            // The last colon of an address in brackets is none before a port.
            Some((host, port)) if !port.ends_with(']') => (host, Some(port)),
            _ => (place, None),
        };
        let port = match port {
            None => kind.port(),
            Some(port) => match port.parse() {
                Ok(port) if port > 0 => port,
                _ => return Err(AddressInvalid("must have a port of 1 to 65535")),
            },
        };
        let host = host.strip_prefix('[').and_then(|host| host.strip_suffix(']')).unwrap_or(host);
        if host.is_empty() {
            return Err(AddressInvalid(SHAPE));
        }
        Ok(Self::Tcp { host: host.to_owned(), port })
    }
}

impl fmt::Display for Host {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tcp { host, port } if host.contains(':') => write!(f, "[{host}]:{port}"),
            Self::Tcp { host, port } => write!(f, "{host}:{port}"),
            Self::Socket(path) => write!(f, "{}", path.display()),
        }
    }
}

const SHAPE: &str = "must be `kind://user@host:port/database`";

fn decoded(text: &str) -> Result<String, AddressInvalid> {
    match percent_decode_str(text).decode_utf8() {
        Ok(text) if !text.is_empty() && !text.contains('\0') => Ok(text.into_owned()),
        _ => Err(AddressInvalid(SHAPE)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn read(kind: Kind, url: &str) -> (String, String, String) {
        let address = Address::parse(kind, url).unwrap();
        (address.user, address.host.to_string(), address.database)
    }

    #[test]
    fn addresses_are_read() {
        for (kind, url, want) in [
            (Kind::Postgres, "postgresql://u@db/shop", ("u", "db:5432", "shop")),
            (Kind::Postgres, "postgres://u%40x@[::1]:6000/a%2Fb", ("u@x", "[::1]:6000", "a/b")),
            (Kind::Postgres, "postgres://u@[::1]/a", ("u", "[::1]:5432", "a")),
            (Kind::Postgres, "postgresql://u@%2Frun%2Fpg/s", ("u", "/run/pg", "s")),
            (Kind::MariaDb, "mysql://u@10.0.0.1/s", ("u", "10.0.0.1:3306", "s")),
        ] {
            let (user, host, database) = read(kind, url);
            assert_eq!((&*user, &*host, &*database), want, "{url}");
        }
    }

    #[test]
    fn what_is_wrong_is_said_without_the_text() {
        for (url, why) in [
            ("postgresql://u:hunter2@db/shop", "password_file"),
            ("mariadb://u@db/shop", "kind"),
            ("postgresql://db/shop", "user@host"),
            ("postgresql://u@db", "user@host"),
            ("postgresql://u@db/", "user@host"),
            ("postgresql://u@/shop", "user@host"),
            ("postgresql://u@db/shop?sslmode=disable", "user@host"),
            ("postgresql://u@db:0/shop", "port"),
            ("postgresql://u@db:x/shop", "port"),
        ] {
            let refused = Address::parse(Kind::Postgres, url).unwrap_err().to_string();
            assert!(refused.contains(why) && !refused.contains("hunter2"), "{url}: {refused}");
        }
    }
}
