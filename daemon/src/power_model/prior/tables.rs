//! The prior's figures. Written by packaging/dev/fit-prior.py from SPEC's published results, kepler-model-db's curves
//! of them (Apache-2.0), codecarbon's table of TDPs (MIT) and Teads' measurements of cloud bare metal (CC0). Arrays of
//! eleven are by load: 0, 10, … 100 %. Logarithms are natural ones.

/// Eleven figures, by load.
pub(super) type ByLoad = [f64; 11];

/// A generation of processors.
pub(super) struct Generation {
    /// Its name, as in `meter::cpu`.
    pub(super) name: &'static str,
    /// What it adds to ln(wall watts).
    pub(super) offset: ByLoad,
    /// What it adds to ln(TDP) of a package.
    pub(super) tdp_offset: f64,
    /// TDP of a hardware thread in watts, the median of its servers.
    pub(super) watts_per_thread: f64,
    /// Nominal frequency in GHz, the median.
    pub(super) ghz: f64,
    /// Memory of a hardware thread in GiB, the median.
    pub(super) gib_per_thread: f64,
    /// Hardware threads of a core, the median.
    pub(super) smt: f64,
}

/// A single package of at most so many watts of TDP is one of an entry server.
pub(super) const ENTRY_WATTS: f64 = 105.0;
/// ln(wall watts) of a server where all features are 0.
pub(super) const INTERCEPT: ByLoad =
    [2.0401, 1.8121, 1.8061, 1.7448, 1.6735, 1.6109, 1.5684, 1.5654, 1.5874, 1.5883, 1.5642];
/// What each feature adds to it: ln(TDP x packages), ln(threads), ln(GiB), ln(GHz), ln(packages), entry, single.
pub(super) const SLOPES: [ByLoad; 7] = [
    [0.6258, 0.6114, 0.6146, 0.6287, 0.6391, 0.6442, 0.6481, 0.6511, 0.6551, 0.6649, 0.6776],
    [-0.5009, -0.2916, -0.2574, -0.2262, -0.1944, -0.1648, -0.1348, -0.1102, -0.0915, -0.0676, -0.0412],
    [0.2652, 0.2098, 0.2003, 0.1914, 0.1832, 0.1775, 0.1686, 0.1583, 0.1505, 0.1397, 0.1286],
    [-0.8679, -0.6159, -0.5671, -0.536, -0.4864, -0.4275, -0.3664, -0.3151, -0.2783, -0.2525, -0.2309],
    [0.6676, 0.5099, 0.477, 0.44, 0.4014, 0.3709, 0.3417, 0.3228, 0.3075, 0.2823, 0.2489],
    [-0.4881, -0.3909, -0.3657, -0.3466, -0.3254, -0.3055, -0.2804, -0.2566, -0.2431, -0.2212, -0.1992],
    [0.3613, 0.1852, 0.171, 0.1683, 0.1658, 0.1655, 0.1565, 0.1456, 0.1409, 0.1234, 0.0956],
];
/// Factors from wall watts to the ends of the interval, an entry server: errors on CPU models left out.
pub(super) const ENTRY: (ByLoad, ByLoad) = (
    [0.5629, 0.6789, 0.721, 0.7229, 0.7276, 0.7275, 0.7538, 0.7669, 0.7391, 0.7085, 0.7127],
    [1.451, 1.3961, 1.3755, 1.3324, 1.3406, 1.357, 1.325, 1.3477, 1.3343, 1.2864, 1.3813],
);
/// The same, other servers.
pub(super) const SERVER: (ByLoad, ByLoad) = (
    [0.708, 0.7953, 0.8166, 0.8221, 0.8156, 0.8151, 0.8111, 0.8135, 0.8086, 0.809, 0.8192],
    [1.5532, 1.2894, 1.2662, 1.2522, 1.2616, 1.2733, 1.2817, 1.2734, 1.2645, 1.2675, 1.2335],
);
/// The same, errors on whole generations left out: for a generation without a line in [`GENERATIONS`].
pub(super) const NEW: (ByLoad, ByLoad) = (
    [0.5324, 0.706, 0.7174, 0.7335, 0.7384, 0.7473, 0.7539, 0.7474, 0.7559, 0.7673, 0.7597],
    [2.4173, 2.258, 2.185, 2.1589, 2.1889, 2.2275, 2.1756, 2.1082, 2.0185, 1.947, 1.8733],
);
/// ln(TDP) of a package: at one core of 2.5 GHz, for each ln(cores), for each ln(GHz / 2.5).
pub(super) const TDP: [f64; 3] = [3.3658, 0.5633, 0.9726];
/// Power of a package by load over that at full load, with turbo.
pub(super) const SHAPE: ByLoad = [0.1055, 0.2929, 0.4028, 0.5044, 0.6204, 0.7317, 0.8117, 0.8714, 0.934, 0.981, 1.0];
/// Full load over the listed TDP, with turbo.
pub(super) const FULL_OF_LISTED: f64 = 1.047;
/// Full load over the TDP by regression, with turbo, of processors that are made for a cloud and are in no list.
pub(super) const FULL_OF_CUSTOM: f64 = 1.5899;
/// Factor from a package's watts to the upper end of its interval, and from the lower end to them.
pub(super) const PACKAGE_SPREAD: f64 = 1.3023;
/// Watts of memory per GiB: at rest, and what full load of the CPUs adds.
pub(super) const DRAM: [f64; 2] = [0.1799, 0.2042];
/// The part of that by load.
pub(super) const DRAM_SHAPE: ByLoad =
    [0.0, 0.5412, 0.6709, 0.6833, 0.7404, 0.8009, 0.8719, 0.9054, 0.9415, 0.9717, 1.0];
/// Factor from memory's watts to the ends of its interval.
pub(super) const DRAM_SPREAD: f64 = 1.4434;
/// Watts of memory per GiB under loads that do little but use memory: the highest of all measured.
pub(super) const DRAM_STRESS: f64 = 1.1131;
/// Every generation that was fitted.
pub(super) const GENERATIONS: [Generation; 20] = [
    Generation {
        name: "Broadwell",
        offset: [-0.4734, -0.2905, -0.2613, -0.2364, -0.2178, -0.2255, -0.2365, -0.2389, -0.2195, -0.2, -0.1859],
        tdp_offset: -0.0268,
        watts_per_thread: 3.2955,
        ghz: 2.2,
        gib_per_thread: 0.7636,
        smt: 2.0,
    },
    Generation {
        name: "Cascade Lake",
        offset: [-0.3821, -0.1685, -0.1506, -0.1408, -0.1358, -0.137, -0.1207, -0.1061, -0.0881, -0.064, -0.0208],
        tdp_offset: -0.0386,
        watts_per_thread: 3.6607,
        ghz: 2.7,
        gib_per_thread: 1.7143,
        smt: 2.0,
    },
    Generation {
        name: "Coffee Lake",
        offset: [-0.3142, -0.3969, -0.4124, -0.4025, -0.3923, -0.3717, -0.3538, -0.335, -0.3061, -0.2593, -0.1889],
        tdp_offset: -0.2464,
        watts_per_thread: 6.6667,
        ghz: 3.7,
        gib_per_thread: 1.3333,
        smt: 2.0,
    },
    Generation {
        name: "Cooper Lake",
        offset: [-0.1749, -0.0686, -0.0636, -0.0686, -0.074, -0.0775, -0.0758, -0.0676, -0.0489, -0.0364, -0.0221],
        tdp_offset: 0.0775,
        watts_per_thread: 4.4643,
        ghz: 2.9,
        gib_per_thread: 2.5714,
        smt: 2.0,
    },
    Generation {
        name: "Core",
        offset: [0.7017, 0.671, 0.6536, 0.6539, 0.6601, 0.6643, 0.6533, 0.6186, 0.5701, 0.5226, 0.4865],
        tdp_offset: 0.1528,
        watts_per_thread: 16.25,
        ghz: 2.667,
        gib_per_thread: 1.0,
        smt: 1.0,
    },
    Generation {
        name: "EPYC 1st Gen",
        offset: [0.0536, 0.0431, 0.0024, -0.0363, -0.071, -0.1014, -0.1345, -0.1577, -0.1851, -0.2311, -0.2735],
        tdp_offset: 0.0621,
        watts_per_thread: 2.8125,
        ghz: 2.2,
        gib_per_thread: 1.0,
        smt: 2.0,
    },
    Generation {
        name: "EPYC 2nd Gen",
        offset: [0.2493, 0.2937, 0.263, 0.2267, 0.1845, 0.1389, 0.0852, 0.0387, -0.0139, -0.0765, -0.1146],
        tdp_offset: -0.1442,
        watts_per_thread: 1.7578,
        ghz: 2.25,
        gib_per_thread: 1.0,
        smt: 2.0,
    },
    Generation {
        name: "EPYC 3rd Gen",
        offset: [0.1552, 0.1393, 0.1031, 0.0588, 0.0125, -0.0216, -0.0511, -0.084, -0.1239, -0.1464, -0.1565],
        tdp_offset: -0.0198,
        watts_per_thread: 2.1875,
        ghz: 2.45,
        gib_per_thread: 1.0,
        smt: 2.0,
    },
    Generation {
        name: "EPYC 4th Gen",
        offset: [0.4279, 0.1962, 0.1942, 0.1808, 0.16, 0.1332, 0.1024, 0.0689, 0.0218, -0.0303, -0.0747],
        tdp_offset: -0.1294,
        watts_per_thread: 1.875,
        ghz: 2.25,
        gib_per_thread: 1.5,
        smt: 2.0,
    },
    Generation {
        name: "Emerald Rapids",
        offset: [0.3096, 0.0678, 0.064, 0.0631, 0.0725, 0.0876, 0.1072, 0.1303, 0.1449, 0.1527, 0.1639],
        tdp_offset: 0.2081,
        watts_per_thread: 2.7344,
        ghz: 1.9,
        gib_per_thread: 4.0,
        smt: 2.0,
    },
    Generation {
        name: "Haswell",
        offset: [-0.3608, -0.2262, -0.201, -0.1785, -0.1567, -0.1473, -0.1299, -0.1034, -0.0819, -0.0649, -0.0718],
        tdp_offset: -0.1221,
        watts_per_thread: 4.0278,
        ghz: 2.3,
        gib_per_thread: 0.8889,
        smt: 2.0,
    },
    Generation {
        name: "Ice Lake",
        offset: [0.2709, 0.1255, 0.1089, 0.0923, 0.0724, 0.0569, 0.0538, 0.0647, 0.0944, 0.1328, 0.1286],
        tdp_offset: 0.1252,
        watts_per_thread: 3.375,
        ghz: 2.3,
        gib_per_thread: 1.6,
        smt: 2.0,
    },
    Generation {
        name: "Ivy Bridge",
        offset: [0.1186, 0.0599, 0.0519, 0.0507, 0.0453, 0.0439, 0.0379, 0.0408, 0.0661, 0.0795, 0.0659],
        tdp_offset: -0.1543,
        watts_per_thread: 5.625,
        ghz: 2.5,
        gib_per_thread: 1.0,
        smt: 2.0,
    },
    Generation {
        name: "Kaby Lake",
        offset: [-0.566, -0.4896, -0.4544, -0.4359, -0.431, -0.42, -0.3987, -0.3625, -0.3187, -0.2826, -0.2774],
        tdp_offset: -0.0987,
        watts_per_thread: 9.0,
        ghz: 3.5,
        gib_per_thread: 2.0,
        smt: 2.0,
    },
    Generation {
        name: "Nehalem",
        offset: [0.3512, 0.3837, 0.3754, 0.368, 0.3673, 0.3688, 0.3633, 0.3489, 0.326, 0.2978, 0.2792],
        tdp_offset: 0.1099,
        watts_per_thread: 7.9167,
        ghz: 2.933,
        gib_per_thread: 0.5,
        smt: 2.0,
    },
    Generation {
        name: "Opteron",
        offset: [0.0166, 0.1096, 0.1384, 0.1697, 0.205, 0.2342, 0.2503, 0.2387, 0.208, 0.1746, 0.1462],
        tdp_offset: 0.078,
        watts_per_thread: 9.5833,
        ghz: 2.3,
        gib_per_thread: 1.0,
        smt: 1.0,
    },
    Generation {
        name: "Rocket Lake",
        offset: [-0.207, -0.2899, -0.2786, -0.2695, -0.2696, -0.2646, -0.2723, -0.2852, -0.2914, -0.2764, -0.2233],
        tdp_offset: -0.1522,
        watts_per_thread: 5.9375,
        ghz: 3.2,
        gib_per_thread: 1.0,
        smt: 2.0,
    },
    Generation {
        name: "Sandy Bridge",
        offset: [-0.1352, -0.1323, -0.1247, -0.1054, -0.0727, -0.0414, 0.0008, 0.0345, 0.0578, 0.0972, 0.1164],
        tdp_offset: 0.135,
        watts_per_thread: 5.9375,
        ghz: 2.3,
        gib_per_thread: 0.75,
        smt: 2.0,
    },
    Generation {
        name: "Sapphire Rapids",
        offset: [0.4265, 0.1535, 0.1499, 0.1514, 0.1706, 0.1945, 0.2121, 0.2239, 0.2221, 0.2117, 0.2074],
        tdp_offset: 0.3038,
        watts_per_thread: 3.0208,
        ghz: 1.95,
        gib_per_thread: 2.0,
        smt: 2.0,
    },
    Generation {
        name: "Skylake",
        offset: [-0.4677, -0.1808, -0.1583, -0.1416, -0.1291, -0.1143, -0.0929, -0.0676, -0.0335, -0.0011, 0.0155],
        tdp_offset: -0.1199,
        watts_per_thread: 3.6607,
        ghz: 2.5,
        gib_per_thread: 1.7143,
        smt: 2.0,
    },
];
