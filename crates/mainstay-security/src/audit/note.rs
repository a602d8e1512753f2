//! Signed heads of a log, as C2SP's checkpoints (tlog-checkpoint, signed-note).
//!
//! ```text
//! mainstay/0123456789abcdef/audit/3f0c9a7be2d41c58
//! 9120
//! <root in base64>
//!
//! — mainstay/0123456789abcdef/audit <base64 of key hash and Ed25519 signature>
//! ```
//!
//! What is signed is the text up to the empty line. Whoever keeps one, and the key, has a hold on
//! everything below it.

use std::fmt;

use aws_lc_rs::signature::{ED25519, Ed25519KeyPair, KeyPair as _, UnparsedPublicKey};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

use super::tree::{HASH_BYTES, Hash};

/// Longest note: a head has less than 400 bytes, and others may sign it too.
pub const NOTE_BYTES_MAX: usize = 8_192;

/// Most signatures that are looked at.
const SIGNATURES_MAX: usize = 16;

/// Names the algorithm in a key: Ed25519.
const ALGORITHM: u8 = 1;

/// How many records a log has, and what they are.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Head {
    /// Which log.
    pub origin: String,
    /// Records.
    pub size: u64,
    /// The root of their tree.
    pub root: Hash,
}

impl Head {
    /// What is signed.
    pub fn text(&self) -> String {
        format!("{}\n{}\n{}\n", self.origin, self.size, self.root.to_base64())
    }
}

/// A text that is no signed head, or one that nobody known signed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NoteError {
    /// It is no signed head.
    #[error("line {line} of the signed head: {problem}")]
    Malformed {
        /// Which line, from 1.
        line: usize,
        /// What is wrong.
        problem: &'static str,
    },
    /// No key that is known signed it.
    #[error("the head of size {size} is signed by no key that is known")]
    KeyUnknown {
        /// Records it is of.
        size: u64,
    },
    /// A key that is known did not sign what stands there.
    #[error("the signature of the head of size {size} is not that of key {key}")]
    Forged {
        /// Records it is of.
        size: u64,
        /// Which key.
        key: String,
    },
    /// A text that is no key.
    #[error("`{0}` is no key like `name+01234567+base64`")]
    KeyInvalid(String),
}

/// Signs heads.
pub struct Signer {
    key: PublicKey,
    pair: Ed25519KeyPair,
}

impl Signer {
    /// The key `name` of 32 random bytes.
    #[expect(clippy::missing_panics_doc, reason = "every 32 bytes are a seed")]
    pub fn new(name: &str, seed: &[u8; 32]) -> Self {
        let pair = Ed25519KeyPair::from_seed_unchecked(seed).expect("every 32 bytes are a seed");
        let public = pair.public_key().as_ref().try_into().expect("a public key has 32 bytes");
        Self { key: PublicKey::new(name, public), pair }
    }

    /// The key that tells its signatures.
    pub const fn key(&self) -> &PublicKey {
        &self.key
    }

    /// `head`, signed.
    pub fn sign(&self, head: &Head) -> Note {
        let text = head.text();
        let signature = self.pair.sign(text.as_bytes());
        let mut bytes = self.key.hash.to_vec();
        bytes.extend_from_slice(signature.as_ref());
        let line = SignatureLine { name: self.key.name.clone(), bytes };
        Note { head: head.clone(), signatures: vec![line] }
    }
}

impl fmt::Debug for Signer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Signer").field(&self.key).finish()
    }
}

/// What tells the signatures of a log. Written `name+key hash+base64`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PublicKey {
    name: String,
    hash: [u8; 4],
    public: [u8; 32],
}

impl PublicKey {
    fn new(name: &str, public: [u8; 32]) -> Self {
        let mut named = name.as_bytes().to_vec();
        named.extend_from_slice(&[b'\n', ALGORITHM]);
        named.extend_from_slice(&public);
        // Of SHA-256, as the tree has it for its empty root: no prefix.
        let digest = aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA256, &named);
        let mut hash = [0; 4];
        hash.copy_from_slice(digest.as_ref().get(..4).expect("SHA-256 has 32 bytes"));
        Self { name: name.to_owned(), hash, public }
    }

    /// What [`PublicKey`] is written as.
    ///
    /// # Errors
    ///
    /// [`NoteError::KeyInvalid`].
    pub fn parse(text: &str) -> Result<Self, NoteError> {
        let text = text.trim();
        let read = || {
            let (name, rest) = text.split_once('+')?;
            let (_hash, encoded) = rest.split_once('+')?;
            let bytes = STANDARD.decode(encoded).ok()?;
            let (algorithm, public) = bytes.split_first()?;
            let is_name = !name.is_empty() && !name.chars().any(char::is_whitespace);
            let key = Self::new(name, public.try_into().ok()?);
            (is_name && *algorithm == ALGORITHM && key.to_string() == text).then_some(key)
        };
        read().ok_or_else(|| NoteError::KeyInvalid(text.chars().take(200).collect()))
    }

    /// Its short name in signatures, in hexadecimal.
    pub fn id(&self) -> String {
        hex(&self.hash)
    }
}

impl fmt::Display for PublicKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut bytes = vec![ALGORITHM];
        bytes.extend_from_slice(&self.public);
        write!(f, "{}+{}+{}", self.name, self.id(), STANDARD.encode(bytes))
    }
}

#[derive(Clone, Debug, PartialEq, Eq)]
struct SignatureLine {
    name: String,
    /// Key hash and signature.
    bytes: Vec<u8>,
}

/// A head and who signed it. What it says is worth something once it is
/// [opened](Note::opened_by).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Note {
    head: Head,
    signatures: Vec<SignatureLine>,
}

impl Note {
    /// Reads one.
    ///
    /// # Errors
    ///
    /// [`NoteError::Malformed`].
    pub fn parse(text: &str) -> Result<Self, NoteError> {
        let mut lines = Lines { text, line: 0 };
        let note = Self::read(&mut lines)?;
        if lines.text.is_empty() {
            return Ok(note);
        }
        Err(NoteError::Malformed { line: lines.line + 1, problem: "something follows it" })
    }

    /// Reads several, one after the other; empty lines may stand between them.
    ///
    /// # Errors
    ///
    /// [`NoteError::Malformed`] of the first that is none.
    pub fn parse_all(text: &str) -> Result<Vec<Self>, NoteError> {
        let (mut lines, mut notes) = (Lines { text, line: 0 }, Vec::new());
        loop {
            while let Some(rest) = lines.text.strip_prefix('\n') {
                (lines.text, lines.line) = (rest, lines.line + 1);
            }
            if lines.text.is_empty() {
                return Ok(notes);
            }
            notes.push(Self::read(&mut lines)?);
        }
    }

    fn read(lines: &mut Lines<'_>) -> Result<Self, NoteError> {
        let origin = lines.next("the origin is missing")?;
        if origin.is_empty() || origin.len() > 512 {
            return Err(lines.wrong("the origin must have 1 to 512 bytes"));
        }
        let size = lines.next("the size is missing")?;
        let number = size.parse::<u64>().ok().filter(|number| number.to_string() == size);
        let size = number.ok_or_else(|| lines.wrong("the size must be a number"))?;
        let root = lines.next("the root is missing")?;
        let root = Hash::parse_base64(root);
        let root = root.ok_or_else(|| lines.wrong("the root must be 32 bytes in base64"))?;
        if !lines.next("an empty line is missing")?.is_empty() {
            return Err(lines.wrong("must be empty"));
        }
        let head = Head { origin: origin.to_owned(), size, root };
        let mut signatures = Vec::new();
        while lines.text.starts_with(DASH) {
            let line = lines.next("the signature is missing")?;
            let parts = line.strip_prefix(DASH).and_then(|line| line.rsplit_once(' '));
            let (name, encoded) = parts.ok_or_else(|| lines.wrong("must be a signature"))?;
            let bytes = STANDARD.decode(encoded).ok().filter(|bytes| 4 < bytes.len());
            let bytes = bytes.ok_or_else(|| lines.wrong("the signature must be base64"))?;
            if signatures.len() == SIGNATURES_MAX {
                return Err(lines.wrong("there are more than 16 signatures"));
            }
            signatures.push(SignatureLine { name: name.to_owned(), bytes });
        }
        if signatures.is_empty() {
            lines.line += 1;
            return Err(lines.wrong("a signature is missing"));
        }
        Ok(Self { head, signatures })
    }

    /// What it says, whoever signed it.
    pub const fn unproven(&self) -> &Head {
        &self.head
    }

    /// The ids of the keys that are said to have signed it.
    pub fn key_ids(&self) -> impl Iterator<Item = String> + '_ {
        self.signatures.iter().filter_map(|line| line.bytes.get(..4)).map(hex)
    }

    /// What it says, if one of `keys` signed it. A signature by a key that is known must be right,
    /// whatever others say; those of keys that are not known are passed over.
    ///
    /// # Errors
    ///
    /// [`NoteError::KeyUnknown`], [`NoteError::Forged`].
    pub fn opened_by(&self, keys: &[PublicKey]) -> Result<&Head, NoteError> {
        let text = self.head.text();
        let mut is_signed = false;
        for SignatureLine { name, bytes } in &self.signatures {
            let (hash, signature) = bytes.split_at_checked(4).unwrap_or_default();
            let known = keys.iter().find(|key| key.hash == hash && key.name == *name);
            let Some(key) = known else { continue };
            let public = UnparsedPublicKey::new(&ED25519, &key.public);
            if let Err(_unspecified) = public.verify(text.as_bytes(), signature) {
                return Err(NoteError::Forged { size: self.head.size, key: key.id() });
            }
            is_signed = true;
        }
        is_signed.then_some(&self.head).ok_or(NoteError::KeyUnknown { size: self.head.size })
    }
}

/// What a line of a signature begins with: an em dash and a space.
const DASH: &str = "\u{2014} ";

impl fmt::Display for Note {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "{}", self.head.text())?;
        for SignatureLine { name, bytes } in &self.signatures {
            writeln!(f, "{DASH}{name} {}", STANDARD.encode(bytes))?;
        }
        Ok(())
    }
}

/// A text that is read line by line.
struct Lines<'a> {
    text: &'a str,
    line: usize,
}

impl<'a> Lines<'a> {
    fn next(&mut self, missing: &'static str) -> Result<&'a str, NoteError> {
        self.line += 1;
        let (line, rest) = self.text.split_once('\n').ok_or_else(|| self.wrong(missing))?;
        self.text = rest;
        Ok(line)
    }

    const fn wrong(&self, problem: &'static str) -> NoteError {
        NoteError::Malformed { line: self.line, problem }
    }
}

const _: () = assert!(HASH_BYTES == 32, "a root in base64 has 44 characters");

/// `bytes` in hexadecimal.
fn hex(bytes: &[u8]) -> String {
    let digits = bytes.iter().flat_map(|byte| [byte >> 4, byte & 15]);
    digits.filter_map(|digit| char::from_digit(digit.into(), 16)).collect()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const NAME: &str = "mainstay/0000000000000001/audit";

    fn head(size: u64) -> Head {
        let origin = format!("{NAME}/00000000000000aa");
        Head { origin, size, root: Hash::leaf(&size.to_le_bytes()) }
    }

    #[test]
    fn a_head_is_opened_by_the_key_that_signed_it_and_by_no_other() {
        let (signer, other) = (Signer::new(NAME, &[1; 32]), Signer::new(NAME, &[2; 32]));
        let note = signer.sign(&head(7));
        let read = Note::parse(&note.to_string()).unwrap();
        assert_eq!(read.opened_by(&[other.key().clone(), signer.key().clone()]), Ok(&head(7)));
        let unknown = NoteError::KeyUnknown { size: 7 };
        assert_eq!(read.opened_by(&[other.key().clone()]), Err(unknown));
        let forged = note.to_string().replacen("\n7\n", "\n8\n", 1);
        let forged = Note::parse(&forged).unwrap();
        let key = signer.key().id();
        assert_eq!(
            forged.opened_by(&[signer.key().clone()]),
            Err(NoteError::Forged { size: 8, key })
        );
    }

    #[test]
    fn keys_and_signatures_are_those_of_signed_notes() {
        // RFC 8032, 7.1, test 1: what openssl and Go make of the same seed.
        let seed = [
            0x9d, 0x61, 0xb1, 0x9d, 0xef, 0xfd, 0x5a, 0x60, 0xba, 0x84, 0x4a, 0xf4, 0x92, 0xec,
            0x2c, 0xc4, 0x44, 0x49, 0xc5, 0x69, 0x7b, 0x32, 0x69, 0x19, 0x70, 0x3b, 0xac, 0x03,
            0x1c, 0xae, 0x7f, 0x60,
        ];
        let signer = Signer::new("example.com/log", &seed);
        assert_eq!(
            hex(&signer.key().public),
            "d75a980182b10ab7d54bfed3c964073a0ee172f3daa62325af021a68f707511a"
        );
        let text = signer.key().to_string();
        assert_eq!(PublicKey::parse(&text).as_ref(), Ok(signer.key()));
        for bad in ["", "a+b", "a+00000000+AQ==", &text.replace("example", "exempla")] {
            assert!(PublicKey::parse(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn what_is_no_head_says_where() {
        let whole = Signer::new(NAME, &[1; 32]).sign(&head(7)).to_string();
        let line = |text: &str| match Note::parse(text) {
            Err(NoteError::Malformed { line, .. }) => line,
            other => panic!("{text}: {other:?}"),
        };
        assert_eq!(line(""), 1);
        assert_eq!(line(&whole.replacen("\n7\n", "\n07\n", 1)), 2);
        assert_eq!(line(&whole.replacen("=\n\n", "\n\n", 1)), 3);
        assert_eq!(line(&whole.replacen("\n\n", "\nx\n", 1)), 4);
        assert_eq!(line(&whole.replacen('\u{2014}', "-", 1)), 5);
        assert_eq!(line(&format!("{whole}\n")), 6);
    }

    #[test]
    fn copies_of_heads_stand_one_after_the_other() {
        let signer = Signer::new(NAME, &[1; 32]);
        let notes: Vec<Note> = (0..5).map(|size| signer.sign(&head(size))).collect();
        let each: Vec<String> = notes.iter().map(|note| format!("{note}\n")).collect();
        let text = each.concat();
        assert_eq!(Note::parse_all(&text), Ok(notes));
        assert_eq!(Note::parse_all(""), Ok(Vec::new()));
        assert!(Note::parse_all(&format!("{text}cut")).is_err());
    }

    proptest! {
        /// Whatever bit of a note is turned: it is no note, or nobody signed it.
        #[test]
        fn no_bit_of_a_head_can_be_turned(size in any::<u64>(), at in any::<prop::sample::Index>()) {
            let signer = Signer::new(NAME, &[1; 32]);
            let mut bytes = signer.sign(&head(size)).to_string().into_bytes();
            let bit = at.index(bytes.len() * 8);
            bytes[bit / 8] ^= 1 << (bit % 8);
            let read = String::from_utf8(bytes).ok().and_then(|text| Note::parse(&text).ok());
            let opened = read.map(|note| note.opened_by(&[signer.key().clone()]).is_ok());
            prop_assert_ne!(opened, Some(true));
        }

        #[test]
        fn whatever_text_is_read_or_refused(text in "\\PC*|[a-z0-9=\n\u{2014} +/]*") {
            let _read = (Note::parse(&text), Note::parse_all(&text), PublicKey::parse(&text));
            if let Ok(note) = Note::parse(&text) {
                prop_assert_eq!(Note::parse(&note.to_string()), Ok(note));
            }
        }
    }
}
