//! Jobs of Slurm on one node, from their cgroups to the job log. Not what a path or an environment means: that is in
//! the unit tests of `entity`.

use crate::common::client::{between, undisturbed};
use crate::common::known::NO_FLOOR;
use crate::common::world::ZONES;
use crate::common::{Daemon, World, joulectl, said, until};
use jouled::model::entity::Kind;
use jouled::model::snapshot::Snapshot;
use std::fs;

const JOB: &str = "/system.slice/slurmstepd.scope/job_";
const UID: u32 = 4_294_000_001;

/// A task of a job, as slurmstepd starts it. `job_cgroup` is the path of the job's cgroup.
fn task_in(world: &World, job_cgroup: &str, pid: u32, job: u32, cpu: u32, account: &str) {
    let cgroup = format!("{job_cgroup}/step_batch/user/task_0");
    world.spawn(pid, u64::from(pid), "sim", &cgroup, cpu);
    let environment = format!(
        "SLURM_JOB_ID={job}\0SLURM_JOB_UID={UID}\0SLURM_JOB_ACCOUNT={account}\0SLURM_JOB_PARTITION=cpu\0\
         SLURM_JOB_NAME=sim {job}\0"
    );
    world.host.write_proc(&format!("{pid}/environ"), environment);
    world.host.write_proc(&format!("{pid}/status"), format!("Name:\tsim\nUid:\t{UID}\t{UID}\t{UID}\t{UID}\n"));
    fs::write(world.cgroups().join(cgroup.trim_start_matches('/')).join("cgroup.procs"), format!("{pid}\n")).unwrap();
}

fn task(world: &World, pid: u32, job: u32, cpu: u32, account: &str) {
    task_in(world, &format!("{JOB}{job}"), pid, job, cpu, account);
}

/// (account, energy of packages and memory in µJ) of each job or step, by job id.
fn charged(snapshot: &Snapshot, kind: Kind) -> Vec<(String, String, u64)> {
    let rows = snapshot.kind(kind).rows.iter();
    let energy = |row: &jouled::model::snapshot::Row| row.energy.dynamic.iter().map(|energy| energy.0).sum();
    let mut all: Vec<_> = rows
        .map(|row| (row.labels.get("job_id").to_owned(), row.labels.get("account").to_owned(), energy(row)))
        .collect();
    all.sort();
    all
}

#[test]
fn each_job_on_a_node_gets_its_own_energy_and_one_line_at_its_end() {
    undisturbed(|| {
        let world = World::new();
        let log = world.state.join("jobs.jsonl");
        world.config(&format!("{NO_FLOOR}[export.jobs]\nlog = {log:?}\n"));
        task(&world, 201, 7, 0, "physics");
        task(&world, 202, 8, 2, "chemistry");
        task(&world, 203, 8, 0, "chemistry");
        // Another job 7: that of a second slurmd on this machine. It does nothing yet.
        task_in(&world, "/system.slice/n2_slurmstepd.scope/job_7", 204, 7, 0, "biology");
        let daemon = Daemon::start(world.jouled().env("JOULED_INTERVAL", "250ms"), &world.state);
        let mut ticks = daemon.ticks();
        // Job 7 used three quarters of the first socket, job 8 the rest and all of the second.
        between(&mut ticks, || {
            [(201, 3), (203, 1), (202, 4)].into_iter().for_each(|(pid, used)| world.run(pid, used));
            for ((zone, _), joules) in ZONES.into_iter().zip([40, 4, 20, 2]) {
                world.draw(zone, joules * 1_000_000);
            }
        })?;
        let expected = [("7", "physics", 33_000_000), ("8", "chemistry", 11_000_000 + 22_000_000)];
        let expected = expected.map(|(id, account, energy)| (id.to_owned(), account.to_owned(), energy));
        let running = ticks.find("names", |snapshot| charged(snapshot, Kind::Job).len() == 2);
        assert_eq!(
            (charged(&running, Kind::Job), charged(&running, Kind::JobStep)),
            (expected.clone().into(), expected.clone().into())
        );
        daemon.page().adds_up();
        assert!(!fs::read_to_string(&log).unwrap_or_default().contains("job_id"), "none has ended");

        // The end of job 7.
        world.end(201);
        fs::remove_dir_all(world.cgroups().join(format!("{JOB}7").trim_start_matches('/'))).unwrap();
        let line = until("the line of the job", || fs::read_to_string(&log).ok().filter(|text| text.ends_with('\n')));
        let json: serde_json::Value = serde_json::from_str(line.trim_end()).unwrap();
        assert_eq!(
            (&json["job_id"], &json["account"], &json["job_name"]),
            (&"7".into(), &"physics".into(), &"sim 7".into())
        );
        assert_eq!((&json["user"], &json["manager"]), (&UID.to_string().into(), &"slurm".into()));
        assert_eq!((&json["microjoules"], &json["quality"]), (&33_000_000.into(), &"measured".into()));
        let ended = said(joulectl(&world.state, &["list", "job", "--ended", "--json"]));
        let ended: serde_json::Value = serde_json::from_str(&ended).unwrap();
        assert_eq!((ended.as_array().unwrap().len(), &ended[0]["labels"]["job_id"]), (1, &"7".into()));
        assert_eq!((&ended[0]["settled"], &ended[0]["microjoules"]), (&true.into(), &33_000_000.into()));
        between(&mut ticks, || {
            world.run(204, 2);
            world.draw("intel-rapl:0", 5_000_000);
        })?;
        let again = ticks.find("the second job 7", |snapshot| charged(snapshot, Kind::Job).len() == 3);
        let sevens: Vec<_> = charged(&again, Kind::Job).into_iter().filter(|(id, ..)| id == "7").collect();
        let both = [("7", "biology", 5_000_000), ("7", "physics", 33_000_000)];
        assert_eq!(sevens, both.map(|(id, account, energy)| (id.to_owned(), account.to_owned(), energy)));
        daemon.page().adds_up();
        daemon.stop();
        assert_eq!(fs::read_to_string(&log).unwrap().lines().count(), 1);
        Some(())
    });
}
