//! Who owns which shard.
//!
//! Every node reads the same list of nodes and computes the same placement: the node with the
//! highest hash of `<node>|<shard>` wins (D. G. Thaler, C. V. Ravishankar: Using Name-Based
//! Mappings to Increase Hit Rates, 1998), so a node that comes or goes moves only its own share.
//! That is only who *should* own a shard. Who does is told by `txn/shard/<ss>` alone: its create
//! revision is the owner's epoch, and every batch compares it.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use mainstay_store::{Batch, Compare, Error, Get, LeaseId, Op, Put, Revision, Store};

use crate::log::{self, Owner, Unreadable};
use crate::name::{Shard, Shards, fnv1a};

/// The node that should own `shard`; of equal hashes the first name wins.
pub fn winner<'a>(nodes: impl IntoIterator<Item = &'a str>, shard: Shard) -> Option<&'a str> {
    let hash = |node: &str| mixed(fnv1a(format!("{node}|{shard}").as_bytes()));
    nodes.into_iter().max_by(|a, b| hash(a).cmp(&hash(b)).then_with(|| b.cmp(a)))
}

/// Spreads what the last bytes changed over all bits: in FNV-1a they hardly reach the high ones, by
/// which hashes are compared, and one node would win every shard. The finalizer of `MurmurHash3`
/// (A. Appleby).
const fn mixed(hash: u64) -> u64 {
    let hash = (hash ^ (hash >> 33)).wrapping_mul(0xff51_afd7_ed55_8ccd);
    let hash = (hash ^ (hash >> 33)).wrapping_mul(0xc4ce_b9fe_1a85_ec53);
    hash ^ (hash >> 33)
}

/// Whether a node may take a shard from whoever has it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Replace {
    /// From everybody: the store belongs to this process alone, and keys of an earlier one may
    /// live on.
    Everybody,
    /// From an earlier process of the same name.
    OwnName,
}

/// What became of a claim.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Claim {
    /// The shard is ours since this revision.
    Ours(Revision),
    /// Somebody else has it.
    Theirs(Owner),
}

/// Why a shard could not be claimed.
#[derive(Debug, thiserror::Error)]
pub enum ClaimError {
    /// The store did not do as asked.
    #[error("shard could not be claimed")]
    Store(#[from] Error),
    /// Its owner's record cannot be read: a newer version may own it.
    #[error("owner of the shard cannot be read")]
    Unreadable(#[from] Unreadable),
}

/// Claims `shard` for `owner`, whose session has the lease `lease`.
///
/// # Errors
///
/// [`ClaimError`]. After an unknown outcome it reads who owns the shard, so it never guesses.
///
/// # Cancel safety
///
/// Whether the shard is ours is open; it ends with the session.
pub async fn claim(
    store: &dyn Store,
    shard: Shard,
    owner: &Owner,
    lease: LeaseId,
    replace: Replace,
) -> Result<Claim, ClaimError> {
    let key = log::shard(shard);
    // Whoever is faster is read in the next round; a key that is made anew has another revision.
    for _round in 0..ROUNDS_MAX {
        let Some(entry) = store.get(Get::new(key.clone())).await?.entry else {
            let put = Put::new(key.clone(), owner.write()).lease(lease);
            let batch = Batch::new().when(Compare::missing(&key)).then(put);
            match store.apply(batch).await {
                Ok(applied) if applied.succeeded => return Ok(Claim::Ours(applied.revision)),
                Ok(_) | Err(Error::OutcomeUnknown) => continue,
                Err(error) => return Err(error.into()),
            }
        };
        let found = Owner::read(&entry.value)?;
        if found == *owner {
            return Ok(Claim::Ours(entry.create_revision));
        }
        if replace == Replace::OwnName && found.node != owner.node {
            return Ok(Claim::Theirs(found));
        }
        // An epoch is a create revision, so the key has to go before it comes.
        let expected = Compare::created_at(&key, entry.create_revision);
        match store.apply(Batch::new().when(expected).then(Op::delete(&key))).await {
            Ok(_) | Err(Error::OutcomeUnknown) => {}
            Err(error) => return Err(error.into()),
        }
    }
    Err(Error::OutcomeUnknown.into())
}

/// Rounds of one claim: two suffice unless others claim at the same time.
const ROUNDS_MAX: usize = 8;

/// What a node should do about shards.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Move {
    /// Claim it.
    Claim(Shard),
    /// Give it to the node that should have it.
    HandOver(Shard),
}

/// How long a shard is free before nodes claim it that should not have it.
pub const FREE_FOR: Duration = Duration::from_secs(1);

/// What the node called `me` should do. `nodes` are alive, `owners` are named by keys of shards,
/// `mine` are owned by this process, and `free_for` says how long a shard has had no owner.
pub fn moves(
    (me, replace): (&str, Replace),
    nodes: &[String],
    owners: &BTreeMap<Shard, String>,
    (mine, shards): (&BTreeSet<Shard>, Shards),
    free_for: impl Fn(Shard) -> Duration,
) -> Vec<Move> {
    let wanted = |shard: Shard| {
        let should = winner(nodes.iter().map(String::as_str), shard).is_none_or(|node| node == me);
        if mine.contains(&shard) {
            let hands_over = !should && replace == Replace::OwnName;
            return hands_over.then_some(Move::HandOver(shard));
        }
        let claims = match owners.get(&shard) {
            // An earlier process of the same name: it cannot write any more once we have it.
            Some(owner) => replace == Replace::Everybody || owner == me,
            None => should || FREE_FOR <= free_for(shard),
        };
        claims.then_some(Move::Claim(shard))
    };
    shards.all().filter_map(wanted).collect()
}

/// Gives `shard` up, if it is still the one created at `created`.
///
/// # Errors
///
/// What the store says; the shard then ends with the session.
///
/// # Cancel safety
///
/// Whether it is given up is open.
pub async fn release(store: &dyn Store, shard: Shard, created: Revision) -> Result<(), Error> {
    let key = log::shard(shard);
    let batch = Batch::new().when(Compare::created_at(&key, created)).then(Op::delete(&key));
    store.apply(batch).await.map(drop)
}

#[cfg(test)]
mod tests {
    use mainstay_core::ManualClock;
    use mainstay_store::Memory;

    use super::*;

    #[test]
    fn a_node_that_goes_moves_only_its_own_shards() {
        let three = ["n1", "n2", "n3"];
        let mut shares = [0; 3];
        for shard in Shards::DEFAULT.all() {
            let before = winner(three, shard).unwrap();
            shares[three.iter().position(|node| *node == before).unwrap()] += 1;
            let after = winner(["n1", "n3"], shard).unwrap();
            assert!(before == after || before == "n2", "shard {shard}");
        }
        assert!(shares.iter().all(|share| (8..40).contains(share)), "{shares:?}");
        assert_eq!(winner([], Shard::new(0)), None);
    }

    #[test]
    fn a_node_claims_what_is_its_own_and_hands_over_what_is_not() {
        let shards = Shards::new(4).unwrap();
        let nodes = ["n1".to_owned(), "n2".to_owned()];
        let won: Vec<Shard> =
            shards.all().filter(|s| winner(["n1", "n2"], *s) == Some("n1")).collect();
        let [first, ..] = won[..] else { panic!("n1 has a share") };
        let other = shards.all().find(|shard| !won.contains(shard)).unwrap();
        let none = BTreeMap::new();
        let check = |replace, owners: &BTreeMap<Shard, String>, mine: &[Shard], free: u64| {
            let mine = mine.iter().copied().collect();
            moves(("n1", replace), &nodes, owners, (&mine, shards), |_| Duration::from_secs(free))
        };
        let free = check(Replace::OwnName, &none, &[], 0);
        assert_eq!(free, won.iter().map(|shard| Move::Claim(*shard)).collect::<Vec<_>>());
        assert_eq!(check(Replace::OwnName, &none, &[], 1).len(), 4, "nobody else wants them");
        let all = |node: &str| shards.all().map(|shard| (shard, node.to_owned())).collect();
        assert_eq!(check(Replace::OwnName, &all("n2"), &[], 9), []);
        assert_eq!(check(Replace::OwnName, &all("n1"), &[], 0).len(), 4, "of an earlier process");
        assert_eq!(check(Replace::Everybody, &all("n2"), &[], 0).len(), 4);
        let had = check(Replace::OwnName, &all("n1"), &[first, other], 0);
        assert!(had.contains(&Move::HandOver(other)) && !had.contains(&Move::HandOver(first)));
    }

    #[tokio::test]
    async fn a_shard_has_one_owner_and_each_a_higher_epoch() {
        let store = Memory::new(ManualClock::default());
        let lease = store.grant(Duration::from_secs(9), None).await.unwrap().id;
        let owner =
            |node: &str, session| Owner { node: node.to_owned(), address: String::new(), session };
        let shard = Shard::new(7);
        let claims = async |node: &str, session, replace| {
            claim(&store, shard, &owner(node, session), lease, replace).await.unwrap()
        };
        let Claim::Ours(first) = claims("n1", 1, Replace::OwnName).await else { panic!("free") };
        let again = claims("n1", 1, Replace::OwnName).await;
        assert_eq!(again, Claim::Ours(first), "asked twice");
        let other = claims("n2", 2, Replace::OwnName).await;
        assert_eq!(other, Claim::Theirs(owner("n1", 1)));
        let Claim::Ours(second) = claims("n1", 3, Replace::OwnName).await else { panic!("ours") };
        let Claim::Ours(third) = claims("n2", 4, Replace::Everybody).await else { panic!("alone") };
        assert!(first < second && second < third);
        release(&store, shard, first).await.unwrap();
        assert_eq!(claims("n2", 4, Replace::OwnName).await, Claim::Ours(third), "not ours to give");
        release(&store, shard, third).await.unwrap();
        assert!(matches!(claims("n1", 1, Replace::OwnName).await, Claim::Ours(_)));
    }
}
