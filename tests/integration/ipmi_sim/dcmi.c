/* DCMI for OpenIPMI's ipmi_sim, which has none: a module that answers capabilities and power readings as a file says. A BMC for tests.
 *
 * The file, read at each request, holds one line: "watts N", "off", "cc HEX" or "length N". Not a whole DCMI. */
#include <stdio.h>
#include <string.h>
#include <time.h>
#include <OpenIPMI/msg.h>
#include <OpenIPMI/mcserv.h>
#include <OpenIPMI/lanserv.h>

static char control[4096];

static void dcmi(lmc_data_t *mc, msg_t *msg, unsigned char *rdata, unsigned int *rdata_len, void *cb)
{
    char word[16] = "";
    unsigned int watts = 0, code = 0, length = 18, active = 0x40, now = time(NULL), period = 1000;
    FILE *file = fopen(control, "r");

    (void)mc, (void)cb;
    if (file) {
        if (fscanf(file, "%15s", word) == 1) {
            if (!strcmp(word, "watts") && fscanf(file, "%u", &watts) != 1)
                watts = 0;
            if (!strcmp(word, "cc") && fscanf(file, "%x", &code) != 1)
                code = 0xff;
            if (!strcmp(word, "length") && fscanf(file, "%u", &length) != 1)
                length = 0;
            if (!strcmp(word, "off"))
                active = 0;
        }
        fclose(file);
    }
    memset(rdata, 0, 32); /* ipmi_sim has room for 36. */
    rdata[1] = 0xdc;
    if (msg->cmd == 1) {
        memcpy(rdata + 2, "\x01\x05\x02\x00\x01\x07", 6);
        *rdata_len = 8;
    } else if (msg->cmd != 2) {
        rdata[0] = 0xc1;
        *rdata_len = 1;
    } else if (code) {
        rdata[0] = code;
        *rdata_len = 1;
    } else {
        for (int at = 2; at < 10; at += 2) {
            rdata[at] = watts;
            rdata[at + 1] = watts >> 8;
        }
        for (int byte = 0; byte < 4; byte++) {
            rdata[10 + byte] = now >> (8 * byte);
            rdata[14 + byte] = period >> (8 * byte);
        }
        rdata[18] = active;
        *rdata_len = 1 + (length < 30 ? length : 30);
    }
}

int ipmi_sim_module_init(sys_data_t *sys, const char *argument)
{
    (void)sys;
    snprintf(control, sizeof control, "%s", argument);
    ipmi_emu_register_group_extension_handler(0xdc, dcmi, NULL);
    return 0;
}
