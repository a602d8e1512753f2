use super::*;

fn key(text: &str) -> Key {
    text.try_into().unwrap()
}

fn put(text: &str) -> Op {
    Put::new(key(text), "v").into()
}

#[test]
fn a_branch_that_changes_a_key_twice_is_refused_in_either_branch_and_order() {
    let delete = Op::delete_range(Range::prefix("a"));
    let cases = [
        (vec![put("a"), put("b")], None),
        (vec![put("a"), put("b"), put("a")], Some("a")),
        (vec![put("ab"), delete.clone()], Some("ab")),
        (vec![delete.clone(), put("ab")], Some("ab")),
        (vec![delete.clone(), delete, put("b")], None),
    ];
    for (ops, want) in cases {
        let want = want.map_or(Ok(()), |text| Err(Error::DuplicateKey { key: key(text) }));
        let then = Batch { then: ops.clone(), ..Batch::new() };
        let otherwise = Batch { otherwise: ops, ..Batch::new() };
        assert_eq!(then.check(), want, "{then:?}");
        assert_eq!(otherwise.check(), want, "{otherwise:?}");
    }
}

#[test]
fn limits_hold_at_n_and_break_at_one_more() {
    let ops = |count: usize| Batch {
        then: (0..count).map(|number| put(&format!("k{number}"))).collect(),
        ..Batch::new()
    };
    assert_eq!(ops(OPERATIONS_MAX).check(), Ok(()));
    assert!(matches!(ops(OPERATIONS_MAX + 1).check(), Err(Error::BatchTooLarge { .. })));
    let compares =
        |count: usize| Batch { compares: vec![Compare::missing(&key("a")); count], ..Batch::new() };
    assert_eq!(compares(COMPARES_MAX).check(), Ok(()));
    assert!(matches!(compares(COMPARES_MAX + 1).check(), Err(Error::BatchTooLarge { .. })));
    let value = |bytes: usize| Batch::new().then(Put::new(key("a"), vec![0; bytes]));
    assert_eq!(value(VALUE_BYTES_MAX).check(), Ok(()));
    assert!(matches!(value(VALUE_BYTES_MAX + 1).check(), Err(Error::ValueTooLarge { .. })));
    let total = |bytes: usize| {
        value(VALUE_BYTES_MAX).then(Put::new(key("b"), vec![0; bytes - VALUE_BYTES_MAX - 2]))
    };
    assert_eq!(total(BATCH_BYTES_MAX).check(), Ok(()));
    assert!(matches!(total(BATCH_BYTES_MAX + 1).check(), Err(Error::BatchTooLarge { .. })));
}
