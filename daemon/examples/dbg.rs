//! x
use jouled::usage::{Usage, bpf::*};
fn ss(pid: i32) -> u64 { std::fs::read_to_string(format!("/proc/{pid}/schedstat")).unwrap().split(' ').next().unwrap().parse().unwrap() }
fn main() {
    let mut u = BpfUsage::open(&BpfOptions { counters: Counters::Off, ..Default::default() }).unwrap();
    let pid = unsafe { libc::fork() };
    if pid == 0 { loop {} }
    let mut sum = 0;
    for i in 0..15 {
        std::thread::sleep(std::time::Duration::from_millis(200));
        let a = ss(pid);
        let s = u.sample().unwrap();
        let b = ss(pid);
        sum += s.uses.iter().filter(|u| u.process.pid == pid as u32).map(|u| u.on_cpu.0).sum::<u64>();
        eprintln!("{i} sum {sum} before {} after {} {}", sum as i64 - a as i64, sum as i64 - b as i64, s.uses.iter().filter(|u| u.process.pid == pid as u32).count());
    }
    std::process::Command::new("sh").arg("-c").arg(r#"bpftool map dump name CPU; bpftool prog | grep -A3 -i "switch"; bpftool -j prog | tr "{" "\\n" | grep switch_btf"#).status().unwrap();
eprintln!("{pid} me {}", std::process::id());   unsafe { libc::kill(pid, 9) };
}
