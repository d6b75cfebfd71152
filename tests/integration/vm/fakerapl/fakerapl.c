// SPDX-License-Identifier: GPL-2.0
/*
 * fakerapl: one synthetic energy account, shown as Linux shows RAPL: a powercap tree and a perf PMU. For test machines only;
 * it measures nothing.
 *
 *   powercap  intel-rapl:0 package-0, intel-rapl:0:0 core, intel-rapl:0:1 dram
 *   perf      PMU "power": energy-cores 0x01, energy-pkg 0x02, energy-ram 0x03, counts of 2^-32 J
 *
 *   package power = pkg_mw  + busy_mw x busy CPUs
 *   core power    = core_mw + busy_mw x busy CPUs
 *   dram power    = dram_mw
 *
 * With wake_mw, turbo_mw or dram_busy_mw the power is no straight line of CPU time. Once a second it is set by the share u of all CPUs that was busy
 * in the second before, as real processors draw it:
 *
 *   package power += wake_mw x u / (u + 0.05)              what any work wakes up: caches, links, clocks
 *   package power += turbo_mw x busy CPUs x (1 - u)        the frequency falls as more CPUs are busy
 *   dram power    += dram_busy_mw x u / (u + 0.3)          a load of memory, which saturates
 *
 * "Busy CPUs" is what the kernel's idle accounting says, to the microsecond, so that a test knows how much energy a burner drew.
 * The powers may be changed at any time; energy drawn before the change is kept. CPU hotplug is not modelled.
 */
#include <linux/cpumask.h>
#include <linux/ktime.h>
#include <linux/math64.h>
#include <linux/module.h>
#include <linux/perf_event.h>
#include <linux/powercap.h>
#include <linux/spinlock.h>
#include <linux/tick.h>
#include <linux/workqueue.h>

#define PJ_PER_UJ 1000000ULL
#define PJ_PER_J 1000000000000ULL

enum domain { PKG, CORE, DRAM, DOMAINS };

static unsigned int mw[DOMAINS] = { 45000, 30000, 5000 };
static unsigned int busy_mw;
static unsigned int wake_mw, turbo_mw, dram_busy_mw;

/* Energy since the module was loaded. A u64 of picojoules lasts for 18 MJ: two days at 100 W. */
static struct account {
	u64 pj[DOMAINS];
	u64 at_ns;
	u64 busy_us;
	/* What the last second adds to the power, and when that second began. */
	u64 bent_mw[DOMAINS];
	u64 bent_at_ns;
	u64 bent_busy_us;
} account;

/* Raw, because the PMU reads in hard interrupt context with interrupts off. */
static DEFINE_RAW_SPINLOCK(account_lock);

/* CPU time spent out of the idle task since boot, all CPUs together, by the same clock that idle time is taken with. */
static u64 busy_us_since_boot(void)
{
	u64 busy = 0;
	int cpu;

	for_each_online_cpu(cpu) {
		u64 wall;
		u64 idle = get_cpu_idle_time_us(cpu, &wall);

		/* -1: the kernel keeps no exact idle time (no dynamic tick). */
		if (idle == (u64)-1)
			return 0;
		idle += get_cpu_iowait_time_us(cpu, NULL);
		if (wall > idle)
			busy += wall - idle;
	}
	return busy;
}

/* Brings the account up to now. 1 mW for 1 ns is 1 pJ. */
static void advance(void)
{
	u64 now_ns = ktime_get_ns();
	u64 busy_us = busy_us_since_boot();
	u64 ns = now_ns - account.at_ns;
	u64 busy_ns = 0;

	lockdep_assert_held(&account_lock);

	/* Idle and iowait time are read one after the other, so the sum may step back by a little; it is caught up later. */
	if (busy_us > account.busy_us) {
		busy_ns = (busy_us - account.busy_us) * NSEC_PER_USEC;
		account.busy_us = busy_us;
	}
	account.at_ns = now_ns;
	account.pj[PKG] += ns * (mw[PKG] + account.bent_mw[PKG]) + busy_ns * busy_mw;
	account.pj[CORE] += ns * mw[CORE] + busy_ns * busy_mw;
	account.pj[DRAM] += ns * (mw[DRAM] + account.bent_mw[DRAM]);
}

/* Part of `most` that a saturating term has at a share of u millionths, where half of it is reached at k millionths. */
static u64 saturating(u64 most, u64 u, u64 k)
{
	return div64_u64(most * u, u + k);
}

/* Sets what the second that ends now adds to the power of the next one. */
static void bend(struct work_struct *work);
static DECLARE_DELAYED_WORK(bend_work, bend);

static void bend(struct work_struct *work)
{
	unsigned int cpus = num_online_cpus();
	unsigned long flags;
	u64 us, u;

	raw_spin_lock_irqsave(&account_lock, flags);
	advance();
	us = div64_u64(account.at_ns - account.bent_at_ns, NSEC_PER_USEC) * cpus;
	u = us ? div64_u64((account.busy_us - account.bent_busy_us) * 1000000, us) : 0;
	u = min_t(u64, u, 1000000);
	account.bent_mw[PKG] = saturating(wake_mw, u, 50000) + div64_u64((u64)turbo_mw * cpus * u * (1000000 - u), 1000000000000ULL);
	account.bent_mw[DRAM] = saturating(dram_busy_mw, u, 300000);
	account.bent_at_ns = account.at_ns;
	account.bent_busy_us = account.busy_us;
	raw_spin_unlock_irqrestore(&account_lock, flags);
	schedule_delayed_work(&bend_work, HZ);
}

static struct account account_now(void)
{
	struct account now;
	unsigned long flags;

	raw_spin_lock_irqsave(&account_lock, flags);
	advance();
	now = account;
	raw_spin_unlock_irqrestore(&account_lock, flags);
	return now;
}

/* ---- parameters ---- */

static int set_power(const char *text, const struct kernel_param *param)
{
	unsigned long flags;
	unsigned int value;
	int err = kstrtouint(text, 0, &value);

	if (err)
		return err;
	raw_spin_lock_irqsave(&account_lock, flags);
	/* Before the module's init there is no account yet. */
	if (account.at_ns)
		advance();
	*(unsigned int *)param->arg = value;
	raw_spin_unlock_irqrestore(&account_lock, flags);
	return 0;
}

static const struct kernel_param_ops power_ops = { .set = set_power, .get = param_get_uint };
module_param_cb(pkg_mw, &power_ops, &mw[PKG], 0644);
MODULE_PARM_DESC(pkg_mw, "package power at rest, mW");
module_param_cb(core_mw, &power_ops, &mw[CORE], 0644);
MODULE_PARM_DESC(core_mw, "core power at rest, mW");
module_param_cb(dram_mw, &power_ops, &mw[DRAM], 0644);
MODULE_PARM_DESC(dram_mw, "dram power, mW");
module_param_cb(busy_mw, &power_ops, &busy_mw, 0644);
MODULE_PARM_DESC(busy_mw, "what every busy CPU adds to package and core, mW");

module_param_cb(wake_mw, &power_ops, &wake_mw, 0644);
MODULE_PARM_DESC(wake_mw, "what any work adds to the package, mW; half of it at 5 % of all CPUs");
module_param_cb(turbo_mw, &power_ops, &turbo_mw, 0644);
MODULE_PARM_DESC(turbo_mw, "what a busy CPU adds to the package while all others rest, mW; nothing where all are busy");
module_param_cb(dram_busy_mw, &power_ops, &dram_busy_mw, 0644);
MODULE_PARM_DESC(dram_busy_mw, "what work adds to dram, mW; half of it at 30 % of all CPUs");

static unsigned long long range_uj = 262143328850ULL;
module_param(range_uj, ullong, 0444);
MODULE_PARM_DESC(range_uj, "highest powercap value before it starts again at zero, uJ");

static bool fail;
module_param(fail, bool, 0644);
MODULE_PARM_DESC(fail, "powercap reads fail, perf counts stand still and new perf events are refused");

static bool pmu = true;
module_param(pmu, bool, 0444);
MODULE_PARM_DESC(pmu, "whether to register the perf PMU");

/* "TIME_ns PKG_pj CORE_pj DRAM_pj BUSY_us": the account itself. Never wraps and never fails. */
static int get_truth(char *buf, const struct kernel_param *param)
{
	struct account now = account_now();

	return sysfs_emit(buf, "%llu %llu %llu %llu %llu\n", now.at_ns, now.pj[PKG], now.pj[CORE], now.pj[DRAM], now.busy_us);
}

static const struct kernel_param_ops truth_ops = { .get = get_truth };
module_param_cb(truth, &truth_ops, NULL, 0444);

/* ---- powercap ---- */

static const char * const zone_names[DOMAINS] = { "package-0", "core", "dram" };
static struct powercap_control_type *control_type;
static struct powercap_zone *zones[DOMAINS];

static int zone_energy(struct powercap_zone *zone, u64 *uj)
{
	struct account now = account_now();
	int domain = zone == zones[PKG] ? PKG : zone == zones[CORE] ? CORE : DRAM;

	if (fail)
		return -EIO;
	div64_u64_rem(now.pj[domain] / PJ_PER_UJ, range_uj + 1, uj);
	return 0;
}

static int zone_range(struct powercap_zone *zone, u64 *uj)
{
	*uj = range_uj;
	return 0;
}

static int zone_release(struct powercap_zone *zone)
{
	return 0;
}

static const struct powercap_zone_ops zone_ops = {
	.get_energy_uj = zone_energy,
	.get_max_energy_range_uj = zone_range,
	.release = zone_release,
};

/* The core demands these four of every zone, also of one that has no constraint. */
static int no_get(struct powercap_zone *zone, int id, u64 *value)
{
	return -ENODATA;
}

static int no_set(struct powercap_zone *zone, int id, u64 value)
{
	return -EACCES;
}

static const struct powercap_zone_constraint_ops constraint_ops = {
	.get_power_limit_uw = no_get,
	.set_power_limit_uw = no_set,
	.get_time_window_us = no_get,
	.set_time_window_us = no_set,
};

static void powercap_stop(void)
{
	int i;

	for (i = DOMAINS - 1; i >= 0; i--)
		if (!IS_ERR_OR_NULL(zones[i]))
			powercap_unregister_zone(control_type, zones[i]);
	powercap_unregister_control_type(control_type);
}

static int powercap_start(void)
{
	int i;

	control_type = powercap_register_control_type(NULL, "intel-rapl", NULL);
	if (IS_ERR(control_type))
		return PTR_ERR(control_type);
	for (i = 0; i < DOMAINS; i++) {
		zones[i] = powercap_register_zone(NULL, control_type, zone_names[i], i == PKG ? NULL : zones[PKG], &zone_ops, 0,
						  &constraint_ops);
		if (IS_ERR(zones[i])) {
			int err = PTR_ERR(zones[i]);

			powercap_stop();
			return err;
		}
	}
	return 0;
}

/* ---- perf ---- */

PMU_FORMAT_ATTR(event, "config:0-7");
static struct attribute *format_attrs[] = { &format_attr_event.attr, NULL };
static const struct attribute_group format_group = { .name = "format", .attrs = format_attrs };

#define SCALE "2.3283064365386962890625e-10"
PMU_EVENT_ATTR_STRING(energy-cores, cores_event, "event=0x01");
PMU_EVENT_ATTR_STRING(energy-cores.unit, cores_unit, "Joules");
PMU_EVENT_ATTR_STRING(energy-cores.scale, cores_scale, SCALE);
PMU_EVENT_ATTR_STRING(energy-pkg, pkg_event, "event=0x02");
PMU_EVENT_ATTR_STRING(energy-pkg.unit, pkg_unit, "Joules");
PMU_EVENT_ATTR_STRING(energy-pkg.scale, pkg_scale, SCALE);
PMU_EVENT_ATTR_STRING(energy-ram, ram_event, "event=0x03");
PMU_EVENT_ATTR_STRING(energy-ram.unit, ram_unit, "Joules");
PMU_EVENT_ATTR_STRING(energy-ram.scale, ram_scale, SCALE);

static struct attribute *event_attrs[] = {
	&cores_event.attr.attr, &cores_unit.attr.attr, &cores_scale.attr.attr,
	&pkg_event.attr.attr, &pkg_unit.attr.attr, &pkg_scale.attr.attr,
	&ram_event.attr.attr, &ram_unit.attr.attr, &ram_scale.attr.attr,
	NULL,
};
static const struct attribute_group event_group = { .name = "events", .attrs = event_attrs };

/* One package: its events are counted on its first CPU. */
static ssize_t cpumask_show(struct device *dev, struct device_attribute *attr, char *buf)
{
	return sysfs_emit(buf, "0\n");
}

static DEVICE_ATTR_RO(cpumask);
static struct attribute *cpumask_attrs[] = { &dev_attr_cpumask.attr, NULL };
static const struct attribute_group cpumask_group = { .attrs = cpumask_attrs };

static const struct attribute_group *pmu_groups[] = { &format_group, &event_group, &cpumask_group, NULL };

static const enum domain domain_of_config[] = { [1] = CORE, [2] = PKG, [3] = DRAM };

/* The account's energy as a count of 2^-32 J. */
static u64 event_energy(struct perf_event *event)
{
	struct account now = account_now();

	return mul_u64_u64_div_u64(now.pj[domain_of_config[event->attr.config]], 1ULL << 32, PJ_PER_J);
}

static void event_update(struct perf_event *event)
{
	u64 now;

	if (fail)
		return;
	now = event_energy(event);
	local64_add(now - local64_read(&event->hw.prev_count), &event->count);
	local64_set(&event->hw.prev_count, now);
}

static void event_start(struct perf_event *event, int flags)
{
	event->hw.state = 0;
	local64_set(&event->hw.prev_count, event_energy(event));
}

static void event_stop(struct perf_event *event, int flags)
{
	if (!(event->hw.state & PERF_HES_STOPPED))
		event_update(event);
	event->hw.state = PERF_HES_STOPPED | PERF_HES_UPTODATE;
}

static int event_add(struct perf_event *event, int flags)
{
	event->hw.state = PERF_HES_STOPPED | PERF_HES_UPTODATE;
	if (flags & PERF_EF_START)
		event_start(event, flags);
	return 0;
}

static void event_del(struct perf_event *event, int flags)
{
	event_stop(event, flags);
}

static int event_init(struct perf_event *event)
{
	u64 config = event->attr.config;

	if (event->attr.type != event->pmu->type)
		return -ENOENT;
	if (config < 1 || config >= ARRAY_SIZE(domain_of_config))
		return -EINVAL;
	if (event->attr.sample_period || event->cpu < 0)
		return -EINVAL;
	if (fail)
		return -EIO;
	event->cpu = 0;
	return 0;
}

static struct pmu power_pmu = {
	.module = THIS_MODULE,
	.task_ctx_nr = perf_invalid_context,
	.capabilities = PERF_PMU_CAP_NO_EXCLUDE,
	.attr_groups = pmu_groups,
	.event_init = event_init,
	.add = event_add,
	.del = event_del,
	.start = event_start,
	.stop = event_stop,
	.read = event_update,
};

/* ---- module ---- */

static int __init fakerapl_init(void)
{
	int err;

	account.busy_us = busy_us_since_boot();
	account.at_ns = ktime_get_ns();
	account.bent_at_ns = account.at_ns;
	account.bent_busy_us = account.busy_us;

	err = powercap_start();
	if (err) {
		pr_err("fakerapl: powercap: error %d (is a real intel-rapl there?)\n", err);
		return err;
	}
	if (!pmu)
		goto started;
	err = perf_pmu_register(&power_pmu, "power", -1);
	if (err) {
		pr_err("fakerapl: PMU \"power\": error %d (is the name taken?)\n", err);
		powercap_stop();
		return err;
	}
started:
	schedule_delayed_work(&bend_work, HZ);
	return 0;
}

static void __exit fakerapl_exit(void)
{
	cancel_delayed_work_sync(&bend_work);
	if (pmu)
		perf_pmu_unregister(&power_pmu);
	powercap_stop();
}

module_init(fakerapl_init);
module_exit(fakerapl_exit);
MODULE_LICENSE("GPL");
MODULE_DESCRIPTION("Synthetic RAPL: a powercap tree and a perf PMU, for tests");
