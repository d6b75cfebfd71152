//! Verification of the BMC, targets of requests, and what is shown of secrets and of the BMC's text.

use super::*;
use crate::sys::https_client::Fingerprint;

#[test]
fn redfish_redirects_are_followed_on_the_bmc_only() {
    let rig = Rig::new(trees::modern());
    rig.sim.fail("GET /redfish/v1/Systems", 1, Fault::Redirect(format!("{}/redfish/v1/Systems", rig.sim.url())));
    let mut meter = rig.open();
    assert_eq!(watts(&round(&mut meter)), Some(374.0), "{:?}", meter.health());
    for to in ["https://evil.example/redfish/v1/", "//evil.example/", "http://127.0.0.1/", "ftp://x"] {
        rig.sim.fail("GET", 1, Fault::Redirect(to.into()));
        assert_eq!(watts(&round(&mut meter)), None, "{to}");
        says(&meter, &["not followed, as the login would go to another host", to]);
        rig.sim.heal();
        assert_eq!(watts(&round(&mut meter)), Some(374.0));
    }
    rig.sim.fail("GET", usize::MAX, Fault::Redirect("/redfish/v1/".into()));
    round(&mut meter);
    says(&meter, &["more than 3 redirects"]);
}

#[test]
fn redfish_self_signed_certificate_shows_its_pin_and_the_pin_works() {
    self_signed(Shows::SelfSigned);
}

#[test]
fn redfish_self_signed_certificate_that_is_a_ca_too() {
    self_signed(Shows::SelfSignedCa);
}

fn self_signed(shows: Shows) {
    let mut rig = Rig::showing(trees::modern(), shows);
    fails(&rig, &["not signed by any in", "ca.pem", &format!("sha256 = \"{}\"", rig.sim.sha256)]);
    rig.config.ca_file = None;
    if rustls_native_certs::load_native_certs().certs.is_empty() {
        println!("not tried: this system has no CA certificates");
    } else {
        fails(&rig, &["self-signed", "ca_file", &rig.sim.sha256]);
    }
    assert_eq!(rig.sim.seen().requests, [""; 0], "nothing was sent to it");
    rig.config.sha256 = Some(Fingerprint::try_from(rig.sim.sha256.clone()).unwrap());
    let mut meter = rig.open();
    assert_eq!(watts(&round(&mut meter)), Some(374.0), "{:?}", meter.health());
    assert!(meter.detail().contains("trusts one SHA-256"));
    // As a file of certificates it will do too.
    rig.config.sha256 = None;
    rig.config.ca_file = Some(rig.dir.path().join("own.pem"));
    std::fs::write(rig.dir.path().join("own.pem"), &rig.sim.certificate).unwrap();
    assert_eq!(watts(&round(&mut rig.open())), Some(374.0));
    rig.config.ca_file = None;
    rig.config.sha256 = Some(Fingerprint([7; 32]));
    fails(&rig, &["another one than sha256 says", &rig.sim.sha256, "another machine"]);
}

#[test]
fn redfish_expired_certificate() {
    let rig = Rig::showing(trees::modern(), Shows::Expired);
    fails(&rig, &["has expired", &rig.sim.sha256]);
    assert_eq!(rig.sim.seen().requests, [""; 0]);
}

#[test]
fn redfish_wrong_host_certificate() {
    let rig = Rig::showing(trees::modern(), Shows::WrongHost);
    fails(&rig, &["not for \"127.0.0.1\"", &rig.sim.sha256]);
    assert_eq!(rig.sim.seen().requests, [""; 0]);
}

#[test]
fn redfish_insecure_is_shown() {
    let mut rig = Rig::showing(trees::modern(), Shows::SelfSigned);
    (rig.config.tls, rig.config.ca_file) = (Tls::Insecure, None);
    let mut meter = rig.open();
    assert_eq!(watts(&round(&mut meter)), Some(374.0));
    assert!(
        meter.detail().contains("INSECURE: not verified") && meter.detail().contains(&rig.sim.sha256),
        "{}",
        meter.detail()
    );
    let mut meter = Rig::showing(trees::modern(), Shows::Nothing).open();
    assert!(meter.detail().contains("INSECURE: no TLS"));
    round(&mut meter);
}

#[test]
fn redfish_plain_http_and_tls_are_not_mixed_up() {
    let mut rig = Rig::showing(trees::modern(), Shows::Nothing);
    let mut meter = rig.open();
    assert_eq!(watts(&round(&mut meter)), Some(374.0), "{:?}", meter.health());
    rig.config.url = rig.config.url.replace("http:", "https:");
    rig.config.tls = Tls::Insecure;
    fails(&rig, &["does not speak TLS"]);
}

#[test]
fn redfish_a_bmcs_text_is_never_shown_raw() {
    let evil = "1U\u{1b}[2J\n\"} 0\u{7}";
    let mut tree = trees::modern();
    tree.get_mut("/redfish/v1/Chassis/1U").unwrap()["Id"] = evil.into();
    tree.get_mut(POWER).unwrap()["Status"]["State"] = evil.into();
    tree.get_mut(METRICS).unwrap()["PowerWatts"]["Reading"] = 1.into();
    let rig = Rig::new(tree);
    let mut meter = rig.open();
    round(&mut meter);
    assert_eq!(meter.domains()[0].id, "redfish/127.0.0.1/1U__2J____0_/platform");
    assert!(!meter.detail().contains(char::is_control));
    rig.sim.set(METRICS, "/PowerWatts/Reading", serde_json::Value::Null);
    rig.sim.set(METRICS, "/EnergykWh/Reading", evil);
    for _ in 0..5 {
        round(&mut meter);
        says(&meter, &[]);
    }
}

#[test]
fn redfish_files_that_cannot_be_used_are_named() {
    let rig = Rig::new(trees::modern());
    let open = |config: &BmcConfig| Redfish::open(config, Path::new("/none"), CancellationToken::new()).err().unwrap();
    let password = BmcConfig { password_file: Some("/none/password".into()), ..rig.config.clone() };
    assert!(open(&password).contains("/none/password: No such file"));
    let ca = BmcConfig { ca_file: Some(rig.dir.path().join("password")), ..rig.config.clone() };
    assert!(open(&ca).contains("no certificate (PEM) in it (ca_file)"));
    let credential = BmcConfig { password_file: None, credential: Some("bmc".into()), ..rig.config.clone() };
    assert!(open(&credential).contains("bmc"));
    assert!(!format!("{:?}{:?}", rig.config, rig.open().state.bmc.client().trust()).contains(PASSWORD));
}

#[test]
fn redfish_a_web_server_is_no_bmc() {
    let mut tree = trees::modern();
    tree.remove("/redfish/v1/");
    let mut rig = Rig::new(tree);
    fails(&rig, &["no Redfish service (404)", "is url a BMC's?"]);
    rig.config.auth = Auth::Basic;
    fails(&rig, &["no Redfish service (404)"]);
}
