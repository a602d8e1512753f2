//! The tree beside the definition of RFC 6962, which is a recursion over the leaves.

use std::convert::Infallible;

use proptest::prelude::*;

use super::*;

/// MTH of the RFC.
fn defined(leaves: &[Hash]) -> Hash {
    match leaves {
        [] => Hash::empty(),
        [leaf] => *leaf,
        more => {
            let (left, right) = more.split_at(usize::try_from(split(more.len() as u64)).unwrap());
            Hash::node(defined(left), defined(right))
        }
    }
}

fn leaves(count: usize) -> Vec<Hash> {
    (0..count).map(|number| Hash::leaf(number.to_string().as_bytes())).collect()
}

fn subtree(leaves: &[Hash]) -> impl FnMut(u32, u64) -> Result<Hash, Infallible> {
    |height, index| {
        let (from, to) = (index << height, (index + 1) << height);
        let part = &leaves[usize::try_from(from).unwrap()..usize::try_from(to).unwrap()];
        Ok(defined(part))
    }
}

fn letters() -> Vec<Hash> {
    ["a", "b", "c", "d", "e"].map(|letter| Hash::leaf(letter.as_bytes())).to_vec()
}

#[test]
fn the_roots_of_the_first_letters_are_those_of_the_specification() {
    let letters = letters();
    let mut frontier = Frontier::default();
    for (size, (start, end)) in [
        ("e3b0c442", "b7852b855"),
        ("022a6979e6dab7aa", "738a24f93c"),
        ("b137985ff484fb60", "d077999eb"),
        ("36642e73c2540ab1", "ce6c021ec1"),
        ("33376a3bd63e9993", "4ec5a6239f0"),
        ("fe14a5426fbd70c0", "88a3070ead97b"),
    ]
    .into_iter()
    .enumerate()
    {
        let root = frontier.root().to_string();
        assert!(root.starts_with(start) && root.ends_with(end), "{size}: {root}");
        if let Some(letter) = letters.get(size) {
            frontier.push(*letter);
        }
    }
    let Ok(proof) = inclusion(2, 5, subtree(&letters));
    let proof: Vec<String> = proof.unwrap().iter().map(ToString::to_string).collect();
    let want = ["d070dc5b8da9aea7", "b137985ff484fb60", "2824a7ccda2caa72"];
    assert_eq!(proof.len(), want.len());
    for (found, want) in proof.iter().zip(want) {
        assert!(found.starts_with(want), "{found} {want}");
    }
}

#[test]
fn there_is_no_proof_of_what_is_not_in_the_tree() {
    let letters = letters();
    let Ok(none) = inclusion(5, 5, subtree(&letters));
    assert_eq!(none, None);
    for (from, to) in [(0, 5), (5, 4)] {
        let Ok(none) = consistency(from, to, subtree(&letters));
        assert_eq!(none, None, "{from} {to}");
    }
    let root = defined(&letters);
    assert!(!is_included(letters[0], 5, 5, &[], root));
    assert!(!is_consistent((0, Hash::empty()), (5, root), &[]));
    assert!(is_consistent((5, root), (5, root), &[]));
}

proptest! {
    /// However many leaves: growing one by one, or from the edge of a tree that is there, comes to
    /// the root as it is defined.
    #[test]
    fn an_edge_has_the_root_of_its_tree(count in 0usize..600, more in 0usize..40) {
        let all = leaves(count + more);
        let known = &all[..count];
        let Ok(mut frontier) = Frontier::of(count as u64, subtree(known));
        prop_assert_eq!(frontier.root(), defined(known));
        let Ok(root) = root(count as u64, subtree(known));
        prop_assert_eq!(root, defined(known));
        all[count..].iter().for_each(|leaf| frontier.push(*leaf));
        prop_assert_eq!(frontier.root(), defined(&all));
        prop_assert_eq!(frontier.size(), all.len() as u64);
    }

    /// Each proof shows what it is of, and nothing else: not of another leaf, place, size or root.
    #[test]
    fn a_proof_of_a_leaf_shows_that_leaf_alone(size in 1u64..300, at in any::<prop::sample::Index>()) {
        let seq = at.index(usize::try_from(size).unwrap()) as u64;
        let all = leaves(usize::try_from(size).unwrap());
        let root = defined(&all);
        let Ok(proof) = inclusion(seq, size, subtree(&all));
        let proof = proof.unwrap();
        let leaf = all[usize::try_from(seq).unwrap()];
        prop_assert!(is_included(leaf, seq, size, &proof, root));
        prop_assert!(!is_included(Hash::leaf(b"other"), seq, size, &proof, root));
        prop_assert!(!is_included(leaf, seq, size, &proof, Hash::empty()));
        prop_assert!(!is_included(leaf, (seq + 1) % size, size, &proof, root) || size == 1);
        let mut longer = proof.clone();
        longer.push(leaf);
        prop_assert!(!is_included(leaf, seq, size, &longer, root));
        if let Some((_, shorter)) = proof.split_last() {
            prop_assert!(!is_included(leaf, seq, size, shorter, root));
        }
    }

    /// A tree that goes on from another is shown to; one of which an old leaf changed is not.
    #[test]
    fn a_proof_of_growth_shows_that_nothing_old_changed(
        from in 1u64..200,
        more in 0u64..200,
        at in any::<prop::sample::Index>(),
    ) {
        let to = from + more;
        let all = leaves(usize::try_from(to).unwrap());
        let first = defined(&all[..usize::try_from(from).unwrap()]);
        let Ok(proof) = consistency(from, to, subtree(&all));
        let proof = proof.unwrap();
        prop_assert!(is_consistent((from, first), (to, defined(&all)), &proof));
        let mut forged = all;
        forged[at.index(usize::try_from(from).unwrap())] = Hash::leaf(b"forged");
        let Ok(other) = consistency(from, to, subtree(&forged));
        prop_assert!(!is_consistent((from, first), (to, defined(&forged)), &other.unwrap()));
        prop_assert!(!is_consistent((from, first), (to, defined(&forged)), &proof));
    }
}
