//! x
use jouled::usage::{Usage, bpf::*};
fn main() {
    let mut u = BpfUsage::open(&BpfOptions { counters: Counters::Off, ..Default::default() }).unwrap();
    let pid = unsafe { libc::fork() };
    if pid == 0 { loop {} }
    for i in 0..4 {
        std::thread::sleep(std::time::Duration::from_millis(200));
        std::process::Command::new("sh").arg("-c").arg("bpftool map dump name CPU; bpftool prog | grep -A3 -i 'switch\\|tick'").status().unwrap();
        let s = u.sample().unwrap();
        eprintln!("{pid} {i} {} uses {} ms lost {:?} ov {} ended {} procs {}", s.uses.len(), s.uses.iter().map(|u| u.on_cpu.0).sum::<u64>() / 1000000, s.lost, s.overflows, s.ended.len(), s.processes.len());
    eprintln!("{:?}", s.uses.iter().filter(|u| u.process.pid == pid as u32).collect::<Vec<_>>());
    }
    unsafe { libc::kill(pid, 9) };
}
