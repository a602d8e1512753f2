use super::*;

fn group(name: &str) -> GroupRef {
    let namespace = Namespace::new("default").unwrap();
    GroupRef { namespace, name: GroupName::new(name).unwrap() }
}

#[track_caller]
fn check(key: &Key, want: &str, means: &CentreKey) {
    assert_eq!(key.to_string(), want);
    assert_eq!(parse_centre(key).as_ref(), Some(means));
}

#[test]
fn keys_of_the_config_centre_are_written_as_the_table_says() {
    let payment = group("payment");
    check(&payment.head(), "cfg/default/payment/head", &CentreKey::Head(payment.clone()));
    let means = CentreKey::Release(payment.clone(), 12);
    check(&payment.release(12), "cfg/default/payment/rel/0000000012", &means);
    let item = ItemName::new("app.yml").unwrap();
    let means = CentreKey::Draft(payment.clone(), item.clone());
    check(&payment.draft(&item), "cfg/default/payment/draft/app.yml", &means);
    let means = CentreKey::DraftsMark(payment.clone());
    check(&payment.drafts_mark(), "cfg/default/payment/draft", &means);
    check(&blob("ab12"), "blob/ab12", &CentreKey::Blob("ab12".to_owned()));
    let node = NodeName::new("n 1").unwrap();
    let means = CentreKey::Hold(node.clone(), payment.clone(), 3);
    check(&payment.hold(&node, 3), "hold/n%201/default/payment/3", &means);
}

#[test]
fn a_group_named_like_another_s_part_keeps_to_itself() {
    let (short, long) = (group("a"), group("a.b"));
    assert!(!short.releases().contains(&long.release(1)));
    assert!(short.releases().contains(&short.release(1)));
    assert!(!short.drafts().contains(&short.drafts_mark()));
    // A group may be called as the parts of a key are.
    assert_eq!(parse_centre(&group("head").head()), Some(CentreKey::Head(group("head"))));
}

#[test]
fn releases_sort_by_number_and_no_number_is_written_in_two_ways() {
    let payment = group("payment");
    assert!(payment.release(9) < payment.release(10));
    for foreign in [
        "cfg/default/payment/rel/12",
        "cfg/default/payment",
        "cfg/default/payment/rel/0000000012/x",
    ] {
        assert_eq!(parse_centre(foreign.as_bytes()), None, "{foreign}");
    }
}
