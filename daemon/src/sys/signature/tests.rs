//! Signatures and keys, also made and checked by the real openssl.

use super::*;
use std::fs;
use std::os::unix::fs::{PermissionsExt as _, symlink};
use std::process::Command;

/// A folder with a key, and its public one.
fn key() -> (tempfile::TempDir, PrivateKey, PathBuf) {
    let dir = tempfile::tempdir().unwrap();
    let (key, public) = PrivateKey::generate(&dir.path().join("key")).unwrap();
    (dir, key, public)
}

fn openssl(dir: &Path, arguments: &[&str]) -> Option<String> {
    let ran = Command::new("openssl").args(arguments).current_dir(dir).output();
    let Ok(ran) = ran else {
        println!("skipped: no openssl");
        return None;
    };
    let said = String::from_utf8_lossy(&[ran.stdout, ran.stderr].concat()).into_owned();
    assert!(ran.status.success(), "{arguments:?}: {said}");
    Some(said)
}

#[test]
fn rfc_8032_has_the_same_signature() {
    // Section 7.1, test 2.
    let seed = "4ccd089b28ff96da9db6c346ec114e0f5b8a319f35aba624da8cf6ed4fb8a6fb";
    let bytes = |hex: &str| -> Vec<u8> {
        (0..hex.len()).step_by(2).map(|at| u8::from_str_radix(&hex[at..at + 2], 16).unwrap()).collect()
    };
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("key");
    let der = [&bytes("302e020100300506032b657004220420"), bytes(seed).as_slice()].concat();
    fs::write(&path, format!("-----BEGIN PRIVATE KEY-----\n{}\n-----END PRIVATE KEY-----\n", STANDARD.encode(der)))
        .unwrap();
    fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).unwrap();
    let signature = PrivateKey::read(&path).unwrap().sign(&[0x72]);
    let right = "92a009a9f0d4cab8720e820b5f642540a2b27b5416503f8fb3762223ebdb69da\
                 085ac1e43e15996e458f3613d0f11d8c387b2eaeb4302aeeb00d291612bb0c00";
    assert_eq!(signature.bytes.to_vec(), bytes(right));
}

#[test]
fn a_signature_is_right_for_its_file_and_its_key_alone() {
    let (dir, key, public) = key();
    let file = dir.path().join("lab.json");
    fs::write(&file, "{}\n").unwrap();
    let trusted = Trusted::files(std::slice::from_ref(&public)).unwrap();
    let check = |trusted: &Trusted| trusted.read_file(&file, 100).map(|read| read.checked);
    assert_eq!(check(&trusted), Ok(Checked::Unsigned));
    let text = key.sign(b"{}\n").to_string();
    fs::write(beside(&file), &text).unwrap();
    assert_eq!(text.lines().next(), Some("jouled signature 1"));
    assert_eq!(Signature::read(text.as_bytes()).unwrap().to_string(), text);
    assert_eq!(
        Signature::read(text.replace('\n', "\r\n").as_bytes()).unwrap().to_string(),
        text,
        "line ends of mail and Windows"
    );
    let signed = Checked::Signed { key: key.public().id(), by: public.display().to_string() };
    assert_eq!(check(&trusted), Ok(signed));
    assert_eq!(check(&Trusted::default()), Ok(Checked::NoTrustedKey { key: key.public().id() }), "no key is trusted");
    // Another content, also one that is the same JSON.
    for other in [&b"{ }\n"[..], b"{}", b""] {
        fs::write(&file, other).unwrap();
        let why = check(&trusted).unwrap_err();
        assert!(why.contains("its signature is wrong") && why.contains("lab.json.sig"), "{why}");
    }
    // Another key.
    fs::write(&file, "{}\n").unwrap();
    let (_other_dir, other, other_public) = self::key();
    fs::write(beside(&file), other.sign(b"{}\n").to_string()).unwrap();
    let why = check(&trusted).unwrap_err();
    assert!(why.contains("which is not trusted") && why.contains(&public.display().to_string()), "{why}");
    let both = Trusted::files(&[public, other_public]).unwrap();
    assert!(check(&both).is_ok());
    // Another key that says that it is this one.
    let forged = Signature { key: key.public().id(), ..other.sign(b"{}\n") };
    assert!(both.check(b"{}\n", &forged).unwrap_err().contains("its signature is wrong"));
}

#[test]
fn what_is_no_signature_says_why() {
    let (dir, key, public) = key();
    let trusted = Trusted::files(&[public]).unwrap();
    let file = dir.path().join("lab.json");
    fs::write(&file, "x").unwrap();
    let good = key.sign(b"x").to_string();
    let why = |text: &[u8]| {
        fs::write(beside(&file), text).unwrap();
        let why = trusted.read_file(&file, 1).unwrap_err();
        assert!(why.contains("lab.json.sig"), "{why}");
        why
    };
    for cut in 0..good.len() - 1 {
        why(&good.as_bytes()[..cut]);
    }
    assert!(why(b"").contains("begins with"));
    assert!(why(&good.as_bytes()[..38]).contains("cut short: line 3, key"));
    assert!(why(&good.as_bytes()[..good.len() - 9]).contains("line 4: the signature has to be 64 bytes"));
    assert!(why(good.replace("signature 1", "signature 3").as_bytes()).contains("update jouled"));
    assert!(why(good.replace("signature 1", "signature x").as_bytes()).contains("line 1: no version"));
    assert!(why(good.replace("ed25519", "rsa").as_bytes()).contains("line 2: the algorithm"));
    assert!(why(good.replace("key: ", "key: +").as_bytes()).contains("line 3: "));
    assert!(why(good.replace("key: ", "name: ").as_bytes()).contains("line 3: it has to be \"key: …\""));
    assert!(why(format!("{good}more\n").as_bytes()).contains("line 5"));
    let made = Made::new(1_795_876_200, "node-1");
    let good = key.sign_made(Some(made), b"x").to_string();
    for cut in 0..good.len() - 1 {
        why(&good.as_bytes()[..cut]);
    }
    assert!(why(good.replace("at: 2026", "at: x").as_bytes()).contains("line 4: no time"));
    assert!(why(good.replace("host: node-1", "host: ").as_bytes()).contains("line 5: no name of a host"));
    assert!(why(format!("{good}more\n").as_bytes()).contains("line 7: a signature has 6 lines"));
    assert!(why(&[0xff; 200]).contains("no signature of jouled"));
    assert!(why(&[b'x'; MOST_BYTES + 1]).contains("more than 4096 bytes"));
    // Also where no key is trusted: what cannot be read is never taken for unsigned.
    assert!(Trusted::default().read_file(&file, 1).is_err());
    fs::remove_file(beside(&file)).unwrap();
    fs::write(dir.path().join("good"), &good).unwrap();
    symlink(dir.path().join("good"), beside(&file)).unwrap();
    assert!(trusted.read_file(dir.path(), 1).is_err() && trusted.read_file(&dir.path().join("none"), 1).is_err());
    assert!(trusted.read_file(&file, 1).unwrap_err().contains("symbolic link"));
}

#[test]
fn time_and_host_are_signed_with_the_file() {
    let (dir, key, public) = key();
    let trusted = Trusted::files(&[public]).unwrap();
    let text = key.sign_made(Some(Made::new(1_795_876_200, "node-1")), b"x").to_string();
    assert!(text.starts_with("jouled signature 2\n") && text.contains("\nat: 2026-11-28T14:30:00Z\nhost: node-1\n"));
    let check = |text: &str| trusted.check(b"x", &Signature::read(text.as_bytes()).unwrap());
    assert!(matches!(check(&text), Ok(Checked::Signed { .. })));
    assert!(matches!(check(&text.replace('\n', "\r\n")), Ok(Checked::Signed { .. })));
    for (from, to) in [("node-1", "node-2"), ("14:30:00Z", "14:30:01Z")] {
        assert!(check(&text.replace(from, to)).unwrap_err().contains("by one byte or more"), "{to}");
    }
    // As version 1, of the file with these lines before it: the lines are no part of a file.
    let plain = format!(
        "jouled signature 1\n{}",
        text.lines()
            .filter(|l| !l.starts_with("at: ") && !l.starts_with("host: "))
            .skip(1)
            .map(|l| format!("{l}\n"))
            .collect::<String>()
    );
    assert!(check(&plain).is_err());
    let long = Made::new(0, &"\u{1b}ä".repeat(200));
    let text = key.sign_made(Some(long), b"x").to_string();
    assert!(matches!(check(&text), Ok(Checked::Signed { .. })), "a name of a host that is no name: {text}");
    // The commands of docs/signatures.md.
    let path = |name: &str| dir.path().join(name);
    fs::write(path("report"), "x").unwrap();
    fs::write(path("report.sig"), key.sign_made(Some(Made::new(0, "node-1")), b"x").to_string()).unwrap();
    let script = "{ sed '/^signature: /d' report.sig; cat report; } > signed; \
                  sed -n 's/^signature: //p' report.sig | base64 -d > raw";
    assert!(Command::new("sh").args(["-c", script]).current_dir(dir.path()).status().unwrap().success());
    let arguments = ["pkeyutl", "-verify", "-pubin", "-inkey", "key.pub", "-rawin", "-in", "signed", "-sigfile", "raw"];
    let Some(said) = openssl(dir.path(), &arguments) else { return };
    assert!(said.contains("Verified Successfully"), "{said}");
}

#[test]
fn keys_are_private_and_are_never_overwritten() {
    let (dir, key, public) = key();
    let path = dir.path().join("key");
    let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o777;
    assert_eq!((mode(&path), public.as_path()), (0o600, dir.path().join("key.pub").as_path()));
    assert_eq!(PrivateKey::read(&path).unwrap().public(), key.public());
    assert_eq!(PublicKey::from_pem(&fs::read(&public).unwrap()), Ok(key.public()));
    let before = fs::read(&path).unwrap();
    assert!(PrivateKey::generate(&path).unwrap_err().contains("never overwritten"));
    fs::rename(&path, dir.path().join("kept")).unwrap();
    assert!(PrivateKey::generate(&path).unwrap_err().contains("key.pub: it exists"));
    assert!(!path.exists(), "nothing is left behind");
    symlink(dir.path().join("nowhere"), &path).unwrap();
    fs::remove_file(&public).unwrap();
    assert!(PrivateKey::generate(&path).unwrap_err().contains("it exists"), "a link to nowhere");
    let kept = dir.path().join("kept");
    assert_eq!(fs::read(&kept).unwrap(), before);
    for open in [0o604, 0o660, 0o602] {
        fs::set_permissions(&kept, fs::Permissions::from_mode(open)).unwrap();
        assert!(PrivateKey::read(&kept).unwrap_err().contains("chmod 0600"));
    }
    // As systemd gives a credential to a unit with a user of its own.
    fs::set_permissions(&kept, fs::Permissions::from_mode(0o440)).unwrap();
    assert!(PrivateKey::read(&kept).is_ok());
    assert!(!format!("{:?}", PrivateKey::read(&kept).unwrap()).contains("seed"));
}

#[test]
fn what_is_no_key_says_why() {
    let (dir, key, _) = key();
    let private = fs::read(dir.path().join("key")).unwrap();
    let public = key.public().to_pem();
    let of_public = |bytes: &[u8]| PublicKey::from_pem(bytes).unwrap_err();
    assert!(of_public(&private).contains("it is a private key"));
    assert!(of_public(b"").contains("no PUBLIC KEY"));
    assert!(of_public(format!("{public}{public}").as_bytes()).contains("more than one"));
    assert!(of_public(&public.as_bytes()[..60]).contains("PEM"));
    assert!(of_public(public.replace("MCow", "MCov").as_bytes()).contains("no key of Ed25519"));
    let of_private = |bytes: &[u8]| PrivateKey::from_pem(bytes).unwrap_err();
    assert!(of_private(public.as_bytes()).contains("no PRIVATE KEY"));
    assert!(of_private(String::from_utf8(private).unwrap().replace("MC4C", "MC4D").as_bytes()).contains("no key of"));
    assert!(of_private(b"-----BEGIN ENCRYPTED PRIVATE KEY-----\n").contains("encrypted"));
    // A folder says of each file that is no key why.
    let folder = dir.path().join("keys");
    fs::create_dir(&folder).unwrap();
    for (name, content) in [("a.pub", public.as_str()), ("b.pem", "x"), ("README", "x"), (".hidden", "x")] {
        fs::write(folder.join(name), content).unwrap();
    }
    symlink(folder.join("a.pub"), folder.join("c.pub")).unwrap();
    fs::write(folder.join("d.pub"), vec![b'x'; 20_000]).unwrap();
    let (trusted, wrong) = Trusted::folder(&folder);
    assert_eq!(trusted, Trusted(vec![(folder.join("a.pub").display().to_string(), key.public())]));
    let has = |words: &str| wrong.iter().any(|(act, line)| line.contains(words) && *act != line.contains("README"));
    assert_eq!(wrong.len(), 4, "{wrong:?}");
    assert!(
        has("README: its name") && has("b.pem: it has no PUBLIC KEY") && has("c.pub: it is a symbolic"),
        "{wrong:?}"
    );
    assert!(has("d.pub: it has more than"), "{wrong:?}");
    assert_eq!(Trusted::folder(&dir.path().join("none")), (Trusted::default(), vec![]));
    assert!(Trusted::files(&[dir.path().join("none")]).unwrap_err().contains("none: No such file"));
}

#[test]
fn openssl_reads_our_keys_and_checks_our_signatures() {
    let (dir, key, _) = key();
    let at = dir.path();
    fs::write(at.join("lab.json"), "{\"watts\": 1}\n").unwrap();
    let text = key.sign(b"{\"watts\": 1}\n").to_string();
    let bytes = STANDARD.decode(text.lines().nth(3).unwrap().strip_prefix("signature: ").unwrap()).unwrap();
    fs::write(at.join("raw"), bytes).unwrap();
    let verify = "pkeyutl -verify -pubin -inkey key.pub -rawin -in lab.json -sigfile raw";
    let Some(said) = openssl(at, &verify.split(' ').collect::<Vec<_>>()) else { return };
    assert!(said.contains("Signature Verified Successfully"), "{said}");
    // The private key, too: openssl makes the same signature, and the same public key.
    openssl(at, &"pkeyutl -sign -inkey key -rawin -in lab.json -out raw2".split(' ').collect::<Vec<_>>());
    assert_eq!(fs::read(at.join("raw")).unwrap(), fs::read(at.join("raw2")).unwrap());
    openssl(at, &["pkey", "-in", "key", "-pubout", "-out", "pub2"]);
    assert_eq!(PublicKey::from_pem(&fs::read(at.join("pub2")).unwrap()), Ok(key.public()));
    // The id, as docs/signatures.md says.
    openssl(at, &"pkey -pubin -in key.pub -outform DER -out der".split(' ').collect::<Vec<_>>());
    let sum = openssl(at, &["dgst", "-sha256", "-r", "der"]).unwrap();
    assert_eq!(sum[..32], key.public().id().to_string());
    // A key that openssl made signs here, and a key of another algorithm does not.
    openssl(at, &"genpkey -algorithm ed25519 -out theirs".split(' ').collect::<Vec<_>>());
    openssl(at, &"pkey -in theirs -pubout -out theirs.pub".split(' ').collect::<Vec<_>>());
    let signature = PrivateKey::read(&at.join("theirs")).unwrap().sign(b"x");
    assert!(Trusted::files(&[at.join("theirs.pub")]).unwrap().check(b"x", &signature).is_ok());
    openssl(at, &"genpkey -algorithm ed448 -out ed448".split(' ').collect::<Vec<_>>());
    assert!(PrivateKey::read(&at.join("ed448")).unwrap_err().contains("no key of Ed25519"));
    openssl(at, &"pkey -in ed448 -pubout -out ed448.pub".split(' ').collect::<Vec<_>>());
    assert!(Trusted::files(&[at.join("ed448.pub")]).unwrap_err().contains("no key of Ed25519"));
}
