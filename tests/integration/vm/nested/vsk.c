// SPDX-License-Identifier: GPL-2.0
/*
 * vsk: standard input and output over vsock, as nc does for TCP. For test machines only.
 *
 *   vsk cid                        prints this machine's own context id
 *   vsk CID PORT [SOURCE_PORT]     sends all of standard input, then prints what comes until the other side closes
 *   vsk hold CID PORT COUNT        opens COUNT connections, sends nothing, prints how many are still open after 2 s, and waits
 */
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <unistd.h>
#include <linux/vm_sockets.h>

static void die(const char *what)
{
	perror(what);
	exit(1);
}

static int dial(unsigned int cid, unsigned int port, unsigned int source_port)
{
	struct sockaddr_vm address = { .svm_family = AF_VSOCK, .svm_cid = VMADDR_CID_ANY, .svm_port = source_port };
	int fd = socket(AF_VSOCK, SOCK_STREAM, 0);

	if (fd < 0)
		die("socket");
	if (source_port && bind(fd, (void *)&address, sizeof(address)))
		die("bind");
	address.svm_cid = cid;
	address.svm_port = port;
	if (connect(fd, (void *)&address, sizeof(address))) {
		close(fd);
		return -1;
	}
	return fd;
}

static void copy(int from, int to)
{
	char buffer[65536];
	ssize_t got, done, put;

	while ((got = read(from, buffer, sizeof(buffer))) > 0) {
		for (done = 0; done < got; done += put) {
			put = write(to, buffer + done, got - done);
			if (put < 0)
				die("write");
		}
	}
	if (got < 0)
		die("read");
}

static int own_cid(void)
{
	unsigned int cid;
	int fd = open("/dev/vsock", O_RDONLY);

	if (fd < 0 || ioctl(fd, IOCTL_VM_SOCKETS_GET_LOCAL_CID, &cid))
		die("/dev/vsock");
	printf("%u\n", cid);
	return 0;
}

/* A connection that the other side closed reads as ready, and gives nothing. */
static int hold(unsigned int cid, unsigned int port, int count)
{
	int opened = 0, open_now = 0, i;
	int *fds = calloc(count, sizeof(*fds));

	if (!fds)
		die("calloc");
	for (i = 0; i < count; i++) {
		fds[i] = dial(cid, port, 0);
		opened += fds[i] >= 0;
	}
	sleep(2);
	for (i = 0; i < count; i++) {
		struct pollfd one = { .fd = fds[i], .events = POLLIN };

		open_now += fds[i] >= 0 && poll(&one, 1, 0) == 0;
	}
	printf("%d connected, %d open\n", opened, open_now);
	fflush(stdout);
	pause();
	return 0;
}

int main(int argc, char **argv)
{
	int fd;

	if (argc == 2 && !strcmp(argv[1], "cid"))
		return own_cid();
	if (argc == 5 && !strcmp(argv[1], "hold"))
		return hold(strtoul(argv[2], NULL, 10), strtoul(argv[3], NULL, 10), atoi(argv[4]));
	if (argc != 3 && argc != 4) {
		fputs("usage: vsk cid | vsk CID PORT [SOURCE_PORT] | vsk hold CID PORT COUNT\n", stderr);
		return 2;
	}
	fd = dial(strtoul(argv[1], NULL, 10), strtoul(argv[2], NULL, 10), argc == 4 ? strtoul(argv[3], NULL, 10) : 0);
	if (fd < 0)
		die("connect");
	copy(STDIN_FILENO, fd);
	copy(fd, STDOUT_FILENO);
	return 0;
}
