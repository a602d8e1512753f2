use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};

use super::*;

/// `document` is read as a `T`, and written again as `written`.
#[track_caller]
fn check<T: Serialize + DeserializeOwned>(document: Value, written: Value) {
    let read: T = serde_json::from_value(document).unwrap();
    assert_eq!(serde_json::to_value(read).unwrap(), written);
}

#[test]
fn a_request_for_a_lock_may_leave_out_what_has_a_default() {
    check::<AcquireLock>(
        json!({"session": "7", "request_id": "r1"}),
        json!({
            "session": "7", "mode": "exclusive", "wait_seconds": 0.0, "request_id": "r1",
            "reentrant": true, "lock_delay_seconds": 0.0,
        }),
    );
}

#[test]
fn a_request_with_a_key_nobody_knows_is_refused_and_an_answer_is_not() {
    let typo = json!({"session": "7", "request_id": "r1", "wait": 5});
    let error = serde_json::from_value::<AcquireLock>(typo).unwrap_err().to_string();
    assert!(error.contains("unknown field `wait`"), "{error}");
    let newer = json!({"token": 9, "revision": 12, "valid_seconds": 13.5, "count": 1, "new": 0});
    let granted: Granted = serde_json::from_value(newer).unwrap();
    assert_eq!(granted.token, 9);
}

#[test]
fn what_happens_to_a_session_says_which_of_its_places_is_meant() {
    let lost = json!({
        "what": "lost", "area": "lock", "namespace": "shop", "name": "sku/1", "token": 41,
        "reason": "revoked",
    });
    check::<SessionChange>(lost.clone(), lost);
    let ended = json!({"what": "ended", "reason": "session-gone"});
    check::<SessionChange>(ended.clone(), ended);
}

#[test]
fn a_lock_nobody_holds_is_a_short_document() {
    let free = json!({
        "area": "lock", "namespace": "shop", "name": "sku-1", "revision": 7, "holders": [],
        "queue": [], "is_delayed": false,
    });
    check::<Status>(free.clone(), free);
}

#[test]
fn a_secret_is_not_shown() {
    let opened = SessionOpened { session: "7".into(), secret: "s3cr3t".into(), ttl_seconds: 15.0 };
    assert!(!format!("{opened:?}").contains("s3cr3t"));
}
