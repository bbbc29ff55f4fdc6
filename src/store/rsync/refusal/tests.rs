//! Sentences for what rsync 3.2 and OpenSSH 9 said. tests/registry/rsync.rs meets them where they are said.

use super::*;
use crate::target::Target;

/// The sentence, and whether it may pass.
fn sentence(target: &str, action: ObjectAction, how: RunExit, stderr: &str) -> (String, bool) {
    let Target::Rsync(at) = target.parse().unwrap() else { panic!("{target}") };
    let ended = RunEnd { how, stdout: Vec::new(), stderr: stderr.to_owned(), searched: String::new() };
    let failure = failure(&FailedRun {
        place: "P".to_owned(),
        at: &at,
        action,
        searched: "/secret/RSYNC_PASSWORD".to_owned(),
        spool: Path::new("/tmp/spool"),
        ended: &ended,
    });
    let waits = matches!(failure, Failure::Transient { .. });
    (failure.into_error().to_string(), waits)
}

#[test]
fn of_daemons() {
    for (action, code, stderr, expected, waits) in [
        (
            ObjectAction::Read,
            5,
            "@ERROR: auth failed on module ci\nrsync error: error starting client-server protocol (code 5) at main.c(1863) [Receiver=3.2.7]\n",
            "P: host denied reading an object (code 5: ERROR: auth failed on module ci); the user and the password of /secret/RSYNC_PASSWORD have to be in \"auth users\" and in the secrets file of the module \"ci\"; RSYNC_PASSWORD is the password, the user stands before the host: rsync://user@host/…",
            false,
        ),
        (
            ObjectAction::Find,
            5,
            "@ERROR: Unknown module 'ci'\n",
            "P: host refused looking for an object (code 5: ERROR: Unknown module 'ci'); there is no module \"ci\": `rsync rsync://host` lists those that are shown, rsyncd.conf has all",
            false,
        ),
        (
            ObjectAction::Store,
            1,
            "ERROR: module is read only\nrsync error: syntax or usage error (code 1) at main.c(1189) [Receiver=3.2.7]\n",
            "P: host denied storing an object (code 1: ERROR: module is read only); the module is read-only: set \"read only = no\" in its part of rsyncd.conf, or name another one",
            false,
        ),
        (
            ObjectAction::Store,
            11,
            "rsync: [receiver] write failed on \"/a/blobs/sha256/ab\" (in ci): No space left on device (28)\nrsync error: error in file IO (code 11) at receiver.c(381) [receiver=3.2.7]\n",
            "P: host refused storing an object (code 11: write failed on \"/a/blobs/sha256/ab\" (in ci): No space left on device (28)); there is no room left there: delete images (tekton-wrap prune does it for runs), or make room",
            false,
        ),
        (
            ObjectAction::Read,
            11,
            "rsync: [receiver] write failed on \"/tmp/spool/1/x\": No space left on device (28)\n",
            "P: host refused reading an object (code 11: write failed on \"/tmp/spool/1/x\": No space left on device (28)); there is no room left here in /tmp/spool: TMPDIR names another folder",
            false,
        ),
        (
            ObjectAction::Store,
            10,
            "rsync: [sender] failed to connect to host (10.0.0.1): Connection refused (111)\nrsync error: error in socket IO (code 10) at clientserver.c(138) [sender=3.2.7]\n",
            "P: host failed storing an object (code 10: failed to connect to host (10.0.0.1): Connection refused (111)); nothing listens there: is the port right, and the service running?",
            true,
        ),
        (
            ObjectAction::Store,
            12,
            "rsync: connection unexpectedly closed (12 bytes received so far) [sender]\n",
            "P: host failed storing an object (code 12: connection unexpectedly closed (12 bytes received so far) [sender]); the connection broke off: look at its log",
            true,
        ),
        (
            ObjectAction::List,
            23,
            "rsync: [sender] opendir \"/a/blobs\" (in ci) failed: Permission denied (13)\n",
            "P: host denied listing objects (code 23: opendir \"/a/blobs\" (in ci) failed: Permission denied (13)); the user that rsync runs as there has to own ci/a and what is in it",
            false,
        ),
        (
            ObjectAction::Read,
            30,
            "[Receiver] io timeout after 60 seconds -- exiting\n",
            "P: host failed reading an object (code 30: io timeout after 60 seconds -- exiting); no byte came for too long",
            true,
        ),
        (ObjectAction::Read, 99, "", "P: host refused reading an object (code 99); look at the log there", false),
    ] {
        let found = sentence("rsync://host/ci/a:v1", action, RunExit::Code(code), stderr);
        assert_eq!(found, (expected.to_owned(), waits));
    }
}

#[test]
fn of_ssh() {
    for (code, stderr, ends_with, waits) in [
        (
            255,
            "@@@@@@@@@@@\n@    WARNING: REMOTE HOST IDENTIFICATION HAS CHANGED!     @\n@@@@@@@@@@@\nHost key verification failed.\n",
            "host:22 denied reading an object (code 255: WARNING: REMOTE HOST IDENTIFICATION HAS CHANGED!); its key is not the one of known_hosts: either somebody is in between, or its keeper changed it and known_hosts has to follow",
            false,
        ),
        (
            255,
            "No ED25519 host key is known for host and you have requested strict checking.\nHost key verification failed.\n",
            "its key is not in known_hosts: put the line of ssh-keyscan there, once you know that it is right (key \"known_hosts\" of the Secret that the param \"credentials\" names)",
            false,
        ),
        (
            255,
            "me@host: Permission denied (publickey).\n",
            "it takes none of /secret/RSYNC_PASSWORD: put the public key into the user's authorized_keys there",
            false,
        ),
        (
            255,
            "client_loop: send disconnect: Broken pipe\n",
            "the ssh connection could not be made, or broke off",
            true,
        ),
        (127, "sh: 1: rsync: not found\n", "there is no program rsync there: install it", false),
        (
            2,
            "protocol version mismatch -- is your shell clean?\n",
            "is it rsync? A shell there that prints something when it starts has this effect too",
            false,
        ),
    ] {
        let (found, passes) =
            sentence("rsync+ssh://me@host:22/srv:v1", ObjectAction::Read, RunExit::Code(code), stderr);
        assert!(found.ends_with(ends_with) && passes == waits, "{found}");
    }
}

#[test]
fn of_runs_that_did_not_begin() {
    for (how, expected) in [
        (
            RunExit::NotStarted("is not on the PATH".to_owned()),
            "P: the program rsync is not on the PATH; install it, or use an image made by images/build --with rsync",
        ),
        (
            RunExit::NoSpool("No space left on device (os error 28)".to_owned()),
            "P: it has to lie in /tmp/spool for a while, which fails: No space left on device (os error 28); TMPDIR names another folder",
        ),
        (RunExit::NoLogin("why".to_owned()), "P: the credentials for rsync can't be had: why"),
        (RunExit::Signal(9), "P: rsync was ended by signal 9"),
    ] {
        assert_eq!(sentence("rsync://host/ci/a:v1", ObjectAction::Read, how, ""), (expected.to_owned(), false));
    }
}
