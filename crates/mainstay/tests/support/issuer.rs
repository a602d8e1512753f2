//! An issuer of tokens: keys made and tokens signed by the `openssl` command, and a server for its
//! key set that rotates, breaks and goes away as a test says.

use std::io::{BufRead as _, BufReader, Write as _};
use std::net::{SocketAddr, TcpListener};
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{SystemTime, UNIX_EPOCH};

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use parking_lot::Mutex;
use serde_json::{Value, json};
use tempfile::TempDir;

/// What the server answers.
#[derive(Clone, Debug)]
pub(crate) enum Answer {
    /// The key set.
    Keys(Vec<Value>),
    /// Something else, with this status.
    Text(u16, String),
    /// Nothing: the connection is closed.
    Away,
}

/// An issuer; its server serves as long as the test process lives.
#[derive(Debug)]
pub(crate) struct Issuer {
    pub(crate) address: SocketAddr,
    answer: Arc<Mutex<Answer>>,
    fetches: Arc<AtomicUsize>,
    folder: TempDir,
}

/// A key of 2,048 bits for RS256.
#[derive(Clone, Debug)]
pub(crate) struct Key {
    kid: String,
    file: PathBuf,
    /// What is published of it.
    pub(crate) jwk: Value,
}

impl Issuer {
    /// Starts one that answers with nothing yet.
    pub(crate) fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let answer = Arc::new(Mutex::new(Answer::Away));
        let fetches = Arc::new(AtomicUsize::new(0));
        let (says, counts) = (Arc::clone(&answer), Arc::clone(&fetches));
        std::thread::spawn(move || {
            for mut stream in listener.incoming().flatten() {
                let mut lines = BufReader::new(&stream).lines().map_while(Result::ok);
                let asked = lines.next().unwrap_or_default();
                let _head = lines.find(String::is_empty);
                counts.fetch_add(1, Ordering::SeqCst);
                let issuer = format!("http://{address}");
                let (status, text) = match says.lock().clone() {
                    Answer::Away => continue,
                    Answer::Text(status, text) => (status, text),
                    Answer::Keys(_) if asked.contains("/.well-known/openid-configuration") => {
                        let uri = format!("{issuer}/keys");
                        (200, json!({ "issuer": issuer, "jwks_uri": uri }).to_string())
                    }
                    Answer::Keys(keys) => (200, json!({ "keys": keys }).to_string()),
                };
                let length = text.len();
                let head = format!("HTTP/1.1 {status} X\r\ncontent-length: {length}\r\n");
                let more = "location: /elsewhere\r\nconnection: close\r\n\r\n";
                drop(stream.write_all(format!("{head}{more}{text}").as_bytes()));
            }
        });
        Self { address, answer, fetches, folder: TempDir::new().unwrap() }
    }

    /// Its name.
    pub(crate) fn name(&self) -> String {
        format!("http://{}", self.address)
    }

    /// Answers like this from now on.
    pub(crate) fn answers(&self, answer: Answer) {
        *self.answer.lock() = answer;
    }

    /// Publishes `keys` from now on.
    pub(crate) fn publishes(&self, keys: &[&Key]) {
        self.answers(Answer::Keys(keys.iter().map(|key| key.jwk.clone()).collect()));
    }

    /// How often it was asked.
    pub(crate) fn fetches(&self) -> usize {
        self.fetches.load(Ordering::SeqCst)
    }

    /// Makes a key called `kid`.
    pub(crate) fn key(&self, kid: &str) -> Key {
        let file = self.folder.path().join(format!("{kid}.pem"));
        openssl(&["genrsa", "-out", file.to_str().unwrap(), "2048"], b"");
        let modulus = openssl(&["rsa", "-in", file.to_str().unwrap(), "-noout", "-modulus"], b"");
        let modulus = String::from_utf8(modulus).unwrap();
        let hex = modulus.trim().strip_prefix("Modulus=").unwrap();
        let digits: Vec<u32> = hex.chars().map(|digit| digit.to_digit(16).unwrap()).collect();
        let byte = |pair: &[u32]| u8::try_from(pair[0] << 4 | pair[1]).unwrap();
        let bytes: Vec<u8> = digits.chunks_exact(2).map(byte).collect();
        let n = URL_SAFE_NO_PAD.encode(bytes);
        let jwk = json!({ "kty": "RSA", "kid": kid, "use": "sig", "n": n, "e": "AQAB" });
        Key { kid: kid.to_owned(), file, jwk }
    }

    /// Claims of a good token for `sub`.
    pub(crate) fn claims(&self, sub: &str) -> Value {
        #[expect(clippy::disallowed_methods, reason = "tokens bear the time of day")]
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs();
        json!({ "iss": self.name(), "aud": "orders", "sub": sub, "iat": now, "exp": now + 600 })
    }

    /// A good token for `sub`.
    pub(crate) fn token(&self, key: &Key, sub: &str) -> String {
        key.token(&self.claims(sub))
    }
}

impl Key {
    /// A token that says `claims`.
    pub(crate) fn token(&self, claims: &Value) -> String {
        let header = json!({ "alg": "RS256", "kid": self.kid });
        self.signed(&header, claims)
    }

    /// The same with a header of the test's.
    pub(crate) fn signed(&self, header: &Value, claims: &Value) -> String {
        let signed = part(header) + "." + &part(claims);
        let sign = ["dgst", "-sha256", "-sign", self.file.to_str().unwrap()];
        let signature = openssl(&sign, signed.as_bytes());
        format!("{signed}.{}", URL_SAFE_NO_PAD.encode(signature))
    }

    /// A token "signed" with the public key as if it were shared (algorithm confusion).
    pub(crate) fn confused(&self, claims: &Value) -> String {
        let public = openssl(&["rsa", "-in", self.file.to_str().unwrap(), "-pubout"], b"");
        let hex: Vec<String> = public.iter().map(|byte| format!("{byte:02x}")).collect();
        let hex = hex.concat();
        let signed = part(&json!({ "alg": "HS256", "kid": self.kid })) + "." + &part(claims);
        let key = format!("hexkey:{hex}");
        let sign = ["dgst", "-sha256", "-mac", "HMAC", "-macopt", &*key, "-binary"];
        format!("{signed}.{}", URL_SAFE_NO_PAD.encode(openssl(&sign, signed.as_bytes())))
    }
}

/// One part of a token.
pub(crate) fn part(value: &Value) -> String {
    URL_SAFE_NO_PAD.encode(value.to_string())
}

#[track_caller]
fn openssl(arguments: &[&str], input: &[u8]) -> Vec<u8> {
    let mut command = Command::new("openssl");
    command.args(arguments).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::null());
    let mut child = command.spawn().unwrap();
    child.stdin.take().unwrap().write_all(input).unwrap();
    let output = child.wait_with_output().unwrap();
    assert!(output.status.success(), "openssl {arguments:?}");
    output.stdout
}
