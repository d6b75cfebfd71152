use super::*;

fn config(toml: &str) -> Config {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("jouled.toml");
    std::fs::write(&file, toml).unwrap();
    Config::load(Some(&file), |_| ()).unwrap()
}

fn anew(old: &str, new: &str) -> (bool, Vec<Part>) {
    let (old, new) = (config(old), config(new));
    (measures_otherwise(&old, &new), Part::ALL.into_iter().filter(|part| part.differs(&old, &new)).collect())
}

#[test]
fn what_stays_the_same_goes_on() {
    assert_eq!(anew("interval = \"2s\"", "interval = \"2s\"\nlog_level = \"debug\""), (false, vec![]));
    assert_eq!(anew("", "interval = \"2s\""), (true, vec![]));
    assert_eq!(anew("", "[meter.rapl]\nvia = \"perf\""), (true, vec![]));
    assert_eq!(anew("", "listen = [\"127.0.0.1:1\"]"), (false, vec![Part::Page]));
    assert_eq!(anew("", "[inventory]\nmachined = false"), (false, vec![Part::Machined]));
    assert_eq!(anew("", "[control]\nmode = \"0600\""), (false, vec![Part::Control]));
    assert_eq!(anew("", "[export.powercap]\npath = \"/run/x\""), (false, vec![Part::Mirror]));
    assert_eq!(anew("", "[export.dbus]\nuse = \"off\""), (false, vec![Part::Bus]));
}

#[test]
fn what_shows_the_guest_channel_begins_anew_with_it() {
    let (measuring, parts) = anew("", "[export.guest]\nprofile = \"trusted\"\nhybrid = [\"/run/firecracker\"]");
    // With a way to guests every VM has a series.
    assert!(measuring);
    assert_eq!(parts, [Part::Guests, Part::Page, Part::Control]);
    // Who gets idle energy is said to guests, too.
    assert_eq!(anew("", "[attribution]\nidle = \"by-use\"").1, [Part::Guests, Part::Page, Part::Control]);
}

#[test]
fn sockets_move_with_the_runtime_folder() {
    assert_eq!(anew("", "runtime_dir = \"/run/other\""), (true, vec![Part::Control, Part::Inventory]));
}
