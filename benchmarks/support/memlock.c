/* Preloaded for the OCI runtimes where RLIMIT_MEMLOCK may not be raised: it says that it was. */
#define _GNU_SOURCE
#include <sys/resource.h>
#include <sys/syscall.h>
#include <unistd.h>

int setrlimit64(__rlimit_resource_t resource, const struct rlimit64* limits) {
    if (resource == RLIMIT_MEMLOCK) return 0;
    return (int)syscall(SYS_prlimit64, 0, resource, limits, NULL);
}
int setrlimit(__rlimit_resource_t resource, const struct rlimit* limits) {
    return setrlimit64(resource, (const struct rlimit64*)limits);
}
