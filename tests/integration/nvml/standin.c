/* A libnvidia-ml.so.1 for machines without an NVIDIA GPU: the functions of NVML that jouled calls, with answers from a text file. The file
 * is read at every call, so that a test can change it while the daemon runs. Not a simulation: the answers are those of the file.
 *
 * The file is STANDIN_FILE at compile time; a line is a word and its values:
 *   init CODE               result of nvmlInit_v2 (nvml.h's numbers: 9 driver not loaded, 15 GPU is lost, ...)
 *   gpu INDEX UUID BUSID NAME
 *   energy INDEX MILLIJOULES      no such line: not supported
 *   power INDEX MILLIWATTS        no such line: not supported
 *   lost INDEX CODE               every question about it is answered so
 *   process INDEX PID PERCENT     one that used it; "noprocess INDEX CODE": the question is answered so
 *   busy INDEX PERCENT            the GPU's own utilisation; no such line: not supported
 *   holder INDEX PID              one that has it open
 *   mig INDEX                     it is in MIG mode
 *   instance INDEX ID SLICES PID  one instance and its process; PID 0: none
 *   hang SECONDS                  every call takes so long
 * Each call appends a letter to STANDIN_FILE.asked: I for nvmlInit, S for nvmlShutdown, q for any other.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

enum { SUCCESS = 0, INVALID = 2, NOT_SUPPORTED = 3, NOT_FOUND = 6, TOO_SMALL = 7, MAX = 16 };

struct gpu {
  int here, lost, mig, instances, processes, holders, noprocess, has_energy, has_power, has_busy;
  char uuid[96], bus[32], name[96];
  unsigned long long energy;
  unsigned power, busy;
  struct { unsigned pid, percent; } process[MAX];
  unsigned holder[MAX];
  struct { unsigned id, slices, pid; } instance[MAX];
};

struct world { int init; struct gpu gpu[MAX]; };

/* A handle is 1 + 256 * gpu + instance + 1; 0 as the instance: the GPU itself. */
static struct gpu *of(struct world *w, void *handle, int *instance) {
  long number = (long)handle - 1;
  if (number < 0 || number / 256 >= MAX) return NULL;
  if (instance) *instance = (int)(number % 256) - 1;
  return w->gpu[number / 256].here ? &w->gpu[number / 256] : NULL;
}

static void *handle(int gpu, int instance) { return (void *)(1L + 256L * gpu + instance + 1); }

static void note(char what) {
  FILE *file = fopen(STANDIN_FILE ".asked", "a");
  if (file) { fputc(what, file); fclose(file); }
}

static void look(struct world *w) {
  char line[512], word[32];
  int i, a;
  memset(w, 0, sizeof *w);
  FILE *file = fopen(STANDIN_FILE, "r");
  if (!file) { w->init = 9; return; }
  while (fgets(line, sizeof line, file)) {
    unsigned x = 0, y = 0, z = 0;
    unsigned long long big = 0;
    if (sscanf(line, "%31s %d", word, &i) != 2) continue;
    if (!strcmp(word, "init")) { w->init = i; continue; }
    if (!strcmp(word, "hang")) { fclose(file); sleep((unsigned)i); file = NULL; break; }
    if (i < 0 || i >= MAX) continue;
    struct gpu *g = &w->gpu[i];
    a = sscanf(line, "%*s %*d %u %u %u", &x, &y, &z);
    sscanf(line, "%*s %*d %llu", &big);
    if (!strcmp(word, "gpu")) g->here = sscanf(line, "%*s %*d %95s %31s %95[^\n]", g->uuid, g->bus, g->name) == 3;
    else if (!strcmp(word, "energy")) { g->has_energy = 1; g->energy = big; }
    else if (!strcmp(word, "power")) { g->has_power = 1; g->power = x; }
    else if (!strcmp(word, "lost")) g->lost = (int)x;
    else if (!strcmp(word, "noprocess")) g->noprocess = (int)x;
    else if (!strcmp(word, "busy")) { g->has_busy = 1; g->busy = x; }
    else if (!strcmp(word, "mig")) g->mig = 1;
    else if (!strcmp(word, "process") && a == 2 && g->processes < MAX) {
      g->process[g->processes].pid = x;
      g->process[g->processes++].percent = y;
    } else if (!strcmp(word, "holder") && g->holders < MAX) g->holder[g->holders++] = x;
    else if (!strcmp(word, "instance") && a == 3 && g->instances < MAX) {
      g->instance[g->instances].id = x;
      g->instance[g->instances].slices = y;
      g->instance[g->instances++].pid = z;
    }
  }
  if (file) fclose(file);
}

static void see(struct world *w) { note('q'); look(w); }

/* What every question about a device begins with. */
#define ASKED(device) \
  struct world w; int instance = -1; see(&w); (void)instance; \
  struct gpu *g = of(&w, device, &instance); \
  if (w.init) return w.init; \
  if (!g) return INVALID; \
  if (g->lost) return g->lost

static unsigned long long now_us(void) {
  struct timespec t;
  clock_gettime(CLOCK_REALTIME, &t);
  return (unsigned long long)t.tv_sec * 1000000ull + (unsigned long long)t.tv_nsec / 1000;
}

int nvmlInit_v2(void) { struct world w; note('I'); look(&w); return w.init; }
int nvmlInitWithFlags(unsigned flags) { (void)flags; return nvmlInit_v2(); }
int nvmlShutdown(void) { note('S'); return SUCCESS; }

int nvmlSystemGetDriverVersion(char *text, unsigned length) { snprintf(text, length, "999.01"); return SUCCESS; }

int nvmlDeviceGetCount_v2(unsigned *count) {
  struct world w;
  see(&w);
  *count = 0;
  for (int i = 0; i < MAX; i++) if (w.gpu[i].here) *count = (unsigned)i + 1;
  return w.init;
}

int nvmlDeviceGetHandleByIndex_v2(unsigned index, void **device) {
  struct world w;
  see(&w);
  if (w.init) return w.init;
  if (index >= MAX || !w.gpu[index].here) return INVALID;
  if (w.gpu[index].lost) return w.gpu[index].lost;
  *device = handle((int)index, -1);
  return SUCCESS;
}

int nvmlDeviceGetUUID(void *device, char *text, unsigned length) { ASKED(device); snprintf(text, length, "%s", g->uuid); return SUCCESS; }
int nvmlDeviceGetName(void *device, char *text, unsigned length) { ASKED(device); snprintf(text, length, "%s", g->name); return SUCCESS; }

struct pci { char legacy[16]; unsigned domain, bus, device, id, subsystem; char bus_id[32]; };
int nvmlDeviceGetPciInfo_v3(void *device, struct pci *pci) {
  ASKED(device);
  memset(pci, 0, sizeof *pci);
  snprintf(pci->bus_id, sizeof pci->bus_id, "%s", g->bus);
  return SUCCESS;
}

int nvmlDeviceGetTotalEnergyConsumption(void *device, unsigned long long *energy) {
  ASKED(device);
  *energy = g->energy;
  return g->has_energy ? SUCCESS : NOT_SUPPORTED;
}

int nvmlDeviceGetPowerUsage(void *device, unsigned *power) {
  ASKED(device);
  *power = g->power;
  return g->has_power ? SUCCESS : NOT_SUPPORTED;
}

int nvmlDeviceGetPowerManagementLimitConstraints(void *device, unsigned *least, unsigned *most) {
  ASKED(device);
  *least = 100000;
  *most = 100000000;
  return SUCCESS;
}

int nvmlDeviceGetMigMode(void *device, unsigned *current, unsigned *pending) {
  ASKED(device);
  *current = *pending = (unsigned)g->mig;
  return SUCCESS;
}

struct use { unsigned pid; unsigned long long at; unsigned sm, memory, encoder, decoder; };
int nvmlDeviceGetProcessUtilization(void *device, struct use *uses, unsigned *count, unsigned long long since) {
  ASKED(device);
  if (g->noprocess) return g->noprocess;
  if (g->mig) return NOT_SUPPORTED;
  if (!g->processes || since >= now_us()) { *count = 0; return NOT_FOUND; }
  if (!uses || *count < (unsigned)g->processes) { *count = (unsigned)g->processes; return TOO_SMALL; }
  *count = (unsigned)g->processes;
  for (int i = 0; i < g->processes; i++) {
    memset(&uses[i], 0, sizeof uses[i]);
    uses[i].pid = g->process[i].pid;
    uses[i].at = now_us();
    uses[i].sm = g->process[i].percent;
  }
  return SUCCESS;
}

struct sample { unsigned long long at; union { double d; unsigned u; unsigned long long ull; } value; };
int nvmlDeviceGetSamples(void *device, int type, unsigned long long since, int *kind, unsigned *count, struct sample *samples) {
  ASKED(device);
  if (type != 1 || !g->has_busy) return NOT_SUPPORTED;
  *kind = 1;
  if (since >= now_us()) return NOT_FOUND;
  if (samples) { memset(samples, 0, sizeof *samples); samples->at = now_us(); samples->value.u = g->busy; }
  *count = 1;
  return SUCCESS;
}

int nvmlDeviceGetUtilizationRates(void *device, unsigned rates[2]) {
  ASKED(device);
  rates[0] = g->busy;
  rates[1] = 0;
  return g->has_busy ? SUCCESS : NOT_SUPPORTED;
}

struct process { unsigned pid; unsigned long long memory; unsigned gpu_instance, compute_instance; };
static int list(struct process *processes, unsigned *count, const unsigned *pids, unsigned held) {
  if (held && (!processes || *count < held)) { *count = held; return TOO_SMALL; }
  *count = held;
  for (unsigned i = 0; i < held; i++) {
    memset(&processes[i], 0, sizeof processes[i]);
    processes[i].pid = pids[i];
    processes[i].gpu_instance = processes[i].compute_instance = 0xFFFFFFFF;
  }
  return SUCCESS;
}

int nvmlDeviceGetComputeRunningProcesses_v3(void *device, unsigned *count, struct process *processes) {
  ASKED(device);
  if (instance < 0) return list(processes, count, g->holder, (unsigned)g->holders);
  unsigned pid = g->instance[instance].pid;
  return list(processes, count, &pid, pid != 0);
}

int nvmlDeviceGetGraphicsRunningProcesses_v3(void *device, unsigned *count, struct process *processes) {
  ASKED(device);
  return list(processes, count, NULL, 0);
}

int nvmlDeviceGetMaxMigDeviceCount(void *device, unsigned *count) { ASKED(device); *count = 7; return SUCCESS; }

int nvmlDeviceGetMigDeviceHandleByIndex(void *device, unsigned index, void **part) {
  ASKED(device);
  if (index >= (unsigned)g->instances) return NOT_FOUND;
  *part = handle((int)(g - w.gpu), (int)index);
  return SUCCESS;
}

int nvmlDeviceGetGpuInstanceId(void *device, unsigned *id) {
  ASKED(device);
  if (instance < 0) return NOT_FOUND;
  *id = g->instance[instance].id;
  return SUCCESS;
}

struct attributes { unsigned processors, copy, decoders, encoders, jpeg, ofa, gpu_slices, compute_slices; unsigned long long memory; };
int nvmlDeviceGetAttributes_v2(void *device, struct attributes *attributes) {
  ASKED(device);
  if (instance < 0) return NOT_SUPPORTED;
  memset(attributes, 0, sizeof *attributes);
  attributes->gpu_slices = attributes->compute_slices = g->instance[instance].slices;
  return SUCCESS;
}
