//! Thresholds, forms and exit codes of the checks.

use super::*;

fn checked(states: &[State]) -> Vec<Checked> {
    states.iter().map(|&state| answer_of("x", "pre", (state, "s".to_owned(), None))).collect()
}

#[test]
fn the_thresholds_are_those_of_the_table() {
    use State::{Fail, Pass, Unknown, Warn};
    for (mib, want) in [(199, Fail), (200, Warn), (2047, Warn), (2048, Pass)] {
        assert_eq!(judge_disk(mib).0, want, "{mib} MiB");
    }
    for (limit, want) in [(Some(3999), Warn), (Some(4000), Pass), (None, Pass)] {
        assert_eq!(judge_files(limit).0, want, "{limit:?}");
    }
    for (mib, want) in [(63, Fail), (64, Warn), (255, Warn), (256, Pass)] {
        assert_eq!(judge_memory(mib).0, want, "{mib} MiB");
    }
    for (seconds, want) in [(0, Fail), (1_790_000_000, Pass), (4_102_444_800, Fail)] {
        assert_eq!(judge_clock(seconds).0, want, "{seconds}");
    }
    for (release, want) in
        [("4.18.0-x", Warn), ("4.19.1", Pass), ("6.1.0-30-amd64", Pass), ("huh", Unknown)]
    {
        assert_eq!(judge_kernel(release).0, want, "{release}");
    }
}

#[test]
fn nagios_gets_one_line_and_its_own_exit_codes() {
    use State::{Fail, Pass, Skip, Unknown, Warn};
    let cases: [(&[State], &str, u8); 5] = [
        (&[Pass, Skip], "MAINSTAY OK - 1 pass | pass=1 warn=0 fail=0 unknown=0", 0),
        (&[Pass, Warn], "MAINSTAY WARNING - 1 warn, 1 pass | pass=1 warn=1 fail=0 unknown=0", 1),
        (
            &[Pass, Warn, Fail, Unknown],
            "MAINSTAY CRITICAL - 1 fail, 1 warn, 1 unknown, 1 pass | pass=1 warn=1 fail=1 unknown=1",
            2,
        ),
        (
            &[Unknown, Pass],
            "MAINSTAY UNKNOWN - 1 unknown, 1 pass | pass=1 warn=0 fail=0 unknown=1",
            3,
        ),
        (&[], "MAINSTAY UNKNOWN - 0 pass | pass=0 warn=0 fail=0 unknown=0", 3),
    ];
    for (states, line, code) in cases {
        let checked = checked(states);
        assert_eq!(Form::Nagios.render(&checked), line);
        assert_eq!(exit_code(Form::Nagios, &checked, Fail), code);
    }
}

#[test]
fn a_warning_fails_only_where_asked() {
    use State::{Fail, Pass, Unknown, Warn};
    let cases: [(&[State], State, u8); 5] = [
        (&[Pass, Warn], Fail, 0),
        (&[Pass, Warn], Warn, 1),
        (&[Pass, Unknown], Warn, 0),
        (&[Pass, Fail], Fail, 1),
        (&[Pass], Warn, 0),
    ];
    for (states, fail_on, code) in cases {
        assert_eq!(exit_code(Form::Text, &checked(states), fail_on), code, "{states:?}");
    }
}

#[test]
fn prometheus_gets_a_number_for_each_check() {
    let text = Form::Prometheus.render(&checked(&[State::Warn, State::Skip]));
    assert!(text.ends_with("mainstay_check_state{check=\"x\",category=\"pre\"} 1\n"), "{text}");
    assert_eq!(text.lines().count(), 3);
}

#[test]
fn a_taken_port_and_a_folder_that_cannot_be_made_are_found() {
    let listener = net::TcpListener::bind("127.0.0.1:0").expect("a port");
    let port = listener.local_addr().expect("bound").port();
    let subject = Subject {
        data_dir: PathBuf::from("/proc/no/such"),
        tcp_ports: vec![port],
        udp_ports: vec![],
    };
    let checked = run(&PRE, &subject);
    let of = |id: &str| checked.iter().find(|checked| checked.id == id).expect("was asked");
    assert_eq!(of("ports-free").state, State::Fail);
    assert_eq!(of("ports-free").evidence.as_deref(), Some(format!("{port}/tcp").as_str()));
    assert_eq!(of("ports-free").next.as_deref(), Some("mainstay explain check-ports-free"));
    assert_eq!(of("data-dir-writable").state, State::Fail);
    assert_eq!(of("clock-sane").state, State::Pass);
}

#[test]
fn a_check_that_hangs_is_unknown_never_pass() {
    let hangs = Check {
        id: "hangs",
        ask: |_| {
            thread::park();
            (State::Pass, String::new(), None)
        },
    };
    let subject = Subject { data_dir: PathBuf::from("/"), tcp_ports: vec![], udp_ports: vec![] };
    let checked = run(&[hangs, hangs, PRE[4]], &subject);
    let states: Vec<State> = checked.iter().map(|checked| checked.state).collect();
    assert_eq!(states, [State::Unknown, State::Unknown, State::Pass]);
}
