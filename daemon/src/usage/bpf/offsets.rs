//! Offsets of the kernel structure members that the eBPF programs read, from /sys/kernel/btf/vmlinux
//! (Documentation/bpf/btf.rst). Not a general BTF library.

use jouled_bpf::Settings;
use std::collections::BTreeSet;

/// BTF of the running kernel: the types of its own structures.
pub const VMLINUX: &str = "/sys/kernel/btf/vmlinux";

const KIND_STRUCT: u32 = 4;
const KIND_UNION: u32 = 5;
const KIND_FORWARD: u32 = 7;
const KIND_TYPEDEF: u32 = 8;
/// How deep anonymous structs and unions are searched. The kernel's own are three deep.
const DEEPEST: u32 = 8;

/// Every offset in bytes, with [`Settings::offsets_known`] set.
///
/// # Errors
/// Names the member that this kernel's BTF lacks.
pub fn settings(btf: &[u8]) -> Result<Settings, String> {
    let types = Types::parse(btf).ok_or("not a BTF file of this byte order")?;
    let task = |name| types.offset("task_struct", name);
    let state = task("__state").or_else(|_| task("state"))?;
    let of_entity = |member, offset: u32| -> Result<u32, String> {
        task("se")?.checked_add(offset).ok_or_else(|| format!("sched_entity.{member}: its offset exceeds 32 bits"))
    };
    let prev_runtime = match types.offset("sched_entity", "prev_sum_exec_runtime") {
        Ok(offset) => of_entity("prev_sum_exec_runtime", offset)?,
        Err(_) => 0,
    };
    Ok(Settings {
        counters: 0,
        offsets_known: 1,
        task_runtime: of_entity("sum_exec_runtime", types.offset("sched_entity", "sum_exec_runtime")?)?,
        task_prev_runtime: prev_runtime,
        task_policy: task("policy")?,
        task_tgid: task("tgid")?,
        task_state: state,
        task_leader: task("group_leader")?,
        task_start: task("start_boottime")?,
        task_comm: task("comm")?,
        task_signal: task("signal")?,
        task_cgroups: task("cgroups")?,
        signal_live: types.offset("signal_struct", "live")?,
        signal_threads: types.offset("signal_struct", "nr_threads")?,
        cset_cgroup: types.offset("css_set", "dfl_cgrp")?,
        cgroup_node: types.offset("cgroup", "kn")?,
        cgroup_root: types.offset("cgroup", "root")?,
        root_hierarchy: types.offset("cgroup_root", "hierarchy_id")?,
        node_id: types.offset("kernfs_node", "id")?,
    })
}

/// The id of a typedef.
///
/// # Errors
/// Names it, where this kernel's BTF lacks it.
pub fn typedef(btf: &[u8], name: &str) -> Result<u32, String> {
    let types = Types::parse(btf).ok_or("not a BTF file of this byte order")?;
    let is_wanted = |at: &u32| types.is_named(*at, KIND_TYPEDEF, name);
    let position = types.starts.iter().position(is_wanted).and_then(|position| u32::try_from(position + 1).ok());
    position.ok_or_else(|| name.to_owned())
}

/// A BTF file in which the type `id` is a typedef of this name, and all types before it are forward declarations
/// without a name, which are the smallest kind.
pub fn btf_with_one_type(id: u32, name: &str) -> Vec<u8> {
    let forward = [0, KIND_FORWARD << 24, 0];
    let typedef = [1, KIND_TYPEDEF << 24, 0];
    let count = id.max(1) - 1;
    let (types, strings) = ((count + 1) * 12, name.len() as u32 + 2);
    let mut file = Vec::with_capacity((24 + types + strings) as usize);
    file.extend(0xeb9f_u16.to_ne_bytes());
    file.extend([1, 0]);
    file.extend([24, 0, types, types, strings].into_iter().flat_map(u32::to_ne_bytes));
    for words in std::iter::repeat_n(forward, count as usize).chain([typedef]) {
        file.extend(words.into_iter().flat_map(u32::to_ne_bytes));
    }
    file.push(0);
    file.extend(name.as_bytes());
    file.push(0);
    file
}

/// The sections of a BTF file: see the kernel's Documentation/bpf/btf.rst for the format.
struct Types<'a> {
    types: &'a [u8],
    strings: &'a [u8],
    /// Position in `types` of each type in bytes; the first type has the id 1.
    starts: Vec<u32>,
}

impl<'a> Types<'a> {
    fn parse(btf: &'a [u8]) -> Option<Self> {
        if u16::from_ne_bytes(btf.get(..2)?.try_into().ok()?) != 0xeb9f {
            return None;
        }
        let header = word(btf, 4)? as usize;
        let section = |at: usize| {
            let start = header.checked_add(word(btf, at)? as usize)?;
            btf.get(start..start.checked_add(word(btf, at + 4)? as usize)?)
        };
        let (types, strings) = (section(8)?, section(16)?);
        let mut starts = Vec::new();
        let mut at = 0;
        while at < types.len() {
            starts.push(u32::try_from(at).ok()?);
            let info = word(types, at + 4)?;
            let entries = (info & 0xffff) as usize;
            at += 12
                + match kind(info) {
                    1 | 14 | 17 => 4,                // integer, variable, declaration tag
                    3 => 12,                         // array
                    4 | 5 | 15 | 19 => entries * 12, // struct, union, data section, 64-bit enum
                    6 | 13 => entries * 8,           // enum, function prototype
                    2 | 7..=12 | 16 | 18 => 0,       // pointers, names and qualifiers, float
                    _ => return None,
                };
        }
        Some(Self { types, strings, starts })
    }

    /// Offset in bytes of a member of a struct.
    fn offset(&self, of: &str, member: &str) -> Result<u32, String> {
        let mut seen = BTreeSet::new();
        self.starts
            .iter()
            .filter(|&&at| self.is_named(at, KIND_STRUCT, of))
            .find_map(|&at| self.member(at as usize, member, 0, &mut seen))
            .ok_or_else(|| format!("{of}.{member}"))
    }

    fn is_named(&self, at: u32, of_kind: u32, name: &str) -> bool {
        let at = at as usize;
        word(self.types, at + 4).is_some_and(|info| kind(info) == of_kind)
            && word(self.types, at).is_some_and(|start| self.name_is(start, name))
    }

    fn name_is(&self, start: u32, name: &str) -> bool {
        let text = self.strings.get(start as usize..).unwrap_or_default();
        text.starts_with(name.as_bytes()) && text.get(name.len()) == Some(&0)
    }

    /// Offset in bytes of a member, also inside anonymous structs and unions. `seen`: those that were searched, so that
    /// structs which contain each other or themselves are not searched again and again.
    fn member(&self, at: usize, name: &str, depth: u32, seen: &mut BTreeSet<u32>) -> Option<u32> {
        let info = word(self.types, at + 4)?;
        let has_bit_fields = info >> 31 == 1;
        for entry in 0..(info & 0xffff) as usize {
            let at = at + 12 + entry * 12;
            let (start, kind_id, offset) =
                (word(self.types, at)?, word(self.types, at + 4)?, word(self.types, at + 8)?);
            // With the flag set, the upper 8 bits are the width of a bit field.
            let bytes = if has_bit_fields { offset & 0x00ff_ffff } else { offset } / 8;
            if self.name_is(start, name) {
                return Some(bytes);
            }
            if start == 0
                && depth < DEEPEST
                && let Some(&inner) = self.starts.get((kind_id as usize).wrapping_sub(1))
                && matches!(kind(word(self.types, inner as usize + 4)?), KIND_STRUCT | KIND_UNION)
                && seen.insert(inner)
                && let Some(inside) = self.member(inner as usize, name, depth + 1, seen)
            {
                return bytes.checked_add(inside);
            }
        }
        None
    }
}

fn kind(info: u32) -> u32 {
    info >> 24 & 0x1f
}

fn word(bytes: &[u8], at: usize) -> Option<u32> {
    Some(u32::from_ne_bytes(bytes.get(at..at.checked_add(4)?)?.try_into().ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// struct task_struct { int a; struct { int tgid; }; }, with the anonymous struct as type 2.
    fn small() -> Vec<u8> {
        let types: Vec<u32> = [
            [1, 4 << 24 | 2, 8].as_slice(),
            &[13, 3, 0],
            &[0, 2, 32],
            &[0, 4 << 24 | 1, 4],
            &[15, 3, 0],
            &[0, 1 << 24, 4, 32],
        ]
        .concat();
        file(b"\0task_struct\0a\0tgid\0", &types)
    }

    fn file(strings: &[u8], types: &[u32]) -> Vec<u8> {
        let mut file = vec![0x9f, 0xeb, 1, 0];
        for number in [24, 0, types.len() as u32 * 4, types.len() as u32 * 4, strings.len() as u32] {
            file.extend(number.to_ne_bytes());
        }
        file.extend(types.iter().flat_map(|number| number.to_ne_bytes()));
        file.extend(strings);
        file
    }

    #[test]
    fn members_are_found_also_in_anonymous_structs() {
        let file = small();
        let types = Types::parse(&file).unwrap();
        assert_eq!(types.offset("task_struct", "a"), Ok(0));
        assert_eq!(types.offset("task_struct", "tgid"), Ok(4));
        assert_eq!(types.offset("task_struct", "tgi"), Err("task_struct.tgi".into()));
    }

    #[test]
    fn offsets_beyond_32_bits_are_no_offsets() {
        // Ten structs, each at the far end of the one around it; the innermost has the member.
        let mut types = vec![1, 4 << 24 | 1, 8, 0, 2, u32::MAX];
        for inner in 3..=9 {
            types.extend([0, 4 << 24 | 1, 8, 0, inner, u32::MAX]);
        }
        types.extend([0, 4 << 24 | 1, 8, 13, 10, u32::MAX, 0, 1 << 24, 4, 32]);
        let odd = file(b"\0task_struct\0tgid\0", &types);
        let odd = Types::parse(&odd).unwrap();
        assert_eq!(odd.offset("task_struct", "tgid"), Err("task_struct.tgid".into()));
    }

    #[test]
    fn the_sum_of_two_offsets_is_checked() {
        let strings = b"\0task_struct\0se\0sched_entity\0sum_exec_runtime\0prev_sum_exec_runtime\0__state\0";
        let at = |name: &str| {
            let strings = std::str::from_utf8(strings).unwrap();
            strings.find(&format!("\0{name}\0")).unwrap() as u32 + 1
        };
        for member in ["sum_exec_runtime", "prev_sum_exec_runtime"] {
            // Eight structs around `se` bring it to nearly 2^32 bytes.
            let mut types = vec![at("task_struct"), 4 << 24 | 2, 8, at("__state"), 10, 0, 0, 2, u32::MAX];
            for inner in 3..=8 {
                types.extend([0, 4 << 24 | 1, 8, 0, inner, u32::MAX]);
            }
            types.extend([0, 4 << 24 | 1, 8, at("se"), 9, u32::MAX]);
            types.extend([at("sched_entity"), 4 << 24 | 1, 8, at(member), 10, u32::MAX, 0, 1 << 24, 4, 32]);
            let error = settings(&file(strings, &types)).err().unwrap();
            assert!(error.contains(member) && error.contains("32 bits"), "{error}");
        }
    }

    #[test]
    fn structs_that_contain_themselves_are_searched_once() {
        // Each member of each struct is one of these structs: 3000^8 paths without an end.
        let members = |count: usize| (0..count).flat_map(|at| [0, at as u32 % 4 + 1, 0]).collect::<Vec<u32>>();
        let mut types = vec![1, 4 << 24 | 3000, 8];
        types.extend(members(3000));
        for _ in 0..3 {
            types.extend([0, 5 << 24 | 3000, 8]);
            types.extend(members(3000));
        }
        let odd = file(b"\0task_struct\0tgid\0", &types);
        assert_eq!(Types::parse(&odd).unwrap().offset("task_struct", "tgid"), Err("task_struct.tgid".into()));
    }

    #[test]
    fn a_truncated_file_is_an_error() {
        let file = small();
        for length in 0..file.len() {
            assert!(settings(&file[..length]).is_err());
        }
    }

    #[test]
    fn a_file_with_one_type_has_it_under_its_id() {
        for id in [1, 2, 70_000] {
            let file = btf_with_one_type(id, "btf_trace_x");
            assert_eq!(typedef(&file, "btf_trace_x"), Ok(id));
            assert_eq!(typedef(&file, "btf_trace"), Err("btf_trace".into()));
            aya::Btf::parse(&file, aya::Endianness::default()).unwrap();
        }
    }

    #[test]
    fn the_running_kernel_has_all_fields() {
        let Ok(btf) = std::fs::read(VMLINUX) else {
            return println!("skipped: no {VMLINUX}");
        };
        let settings = settings(&btf).unwrap();
        assert_ne!(settings.task_tgid, settings.task_comm);
    }
}
