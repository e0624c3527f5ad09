/* What the tests have instead of CUDA's driver: the calls by which memory of another process is opened and copied.
 *
 * A handle holds the path of a file, whose bytes are the memory of a device. As with the real driver, a call needs a context that
 * is current on its thread, bytes that go to the device are there only after the stream was waited for, and nothing is copied that
 * does not lie within what was opened. Memory of a file whose name ends in "unsized" has a size that nobody tells. */

#include <fcntl.h>
#include <pthread.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

enum { SUCCESS = 0, INVALID_VALUE = 1, INVALID_DEVICE = 101, INVALID_CONTEXT = 201, DEVICES = 2, PLACES = 64 };

typedef struct {
    char reserved[64];
} Handle;

typedef struct {
    char path[64];
    char *start;
    size_t size;
    int opened;
} Place;

static Place places[PLACES];
static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static int retained;
static __thread int depth;
static __thread struct {
    char *to;
    void *bytes;
    size_t count;
} pending;

int cuInit(unsigned flags) { return flags == 0 ? SUCCESS : INVALID_VALUE; }

int cuDeviceGetCount(int *count) {
    *count = DEVICES;
    return SUCCESS;
}

int cuDeviceGet(int *device, int ordinal) {
    *device = ordinal;
    return ordinal >= 0 && ordinal < DEVICES ? SUCCESS : INVALID_DEVICE;
}

int cuDevicePrimaryCtxRetain(void **context, int device) {
    __sync_fetch_and_add(&retained, 1);
    *context = &places[device];
    return SUCCESS;
}

int cuDevicePrimaryCtxRelease_v2(int device) {
    __sync_fetch_and_sub(&retained, 1);
    return device < DEVICES ? SUCCESS : INVALID_DEVICE;
}

int cuCtxPushCurrent_v2(void *context) {
    depth += 1;
    return context ? SUCCESS : INVALID_CONTEXT;
}

int cuCtxPopCurrent_v2(void **context) {
    *context = NULL;
    if (depth == 0) return INVALID_CONTEXT;
    depth -= 1;
    return SUCCESS;
}

/* The place of a path, or an empty one. */
static Place *find(const char *path) {
    Place *empty = NULL;
    for (int index = 0; index < PLACES; index++) {
        Place *place = &places[index];
        if (place->opened && strncmp(place->path, path, sizeof place->path) == 0) return place;
        if (!place->opened && !empty) empty = place;
    }
    return empty;
}

static int open_at(Place *place, const char *path) {
    struct stat about;
    int file = open(path, O_RDWR);
    if (file < 0) return INVALID_VALUE;
    if (fstat(file, &about) != 0 || about.st_size == 0) {
        close(file);
        return INVALID_VALUE;
    }
    char *start = mmap(NULL, about.st_size, PROT_READ | PROT_WRITE, MAP_SHARED, file, 0);
    close(file);
    if (start == MAP_FAILED) return INVALID_VALUE;
    memcpy(place->path, path, strlen(path) + 1);
    place->start = start;
    place->size = about.st_size;
    return SUCCESS;
}

int cuIpcOpenMemHandle_v2(unsigned long long *address, Handle handle, unsigned flags) {
    int result = SUCCESS;
    if (depth == 0) return INVALID_CONTEXT;
    if (flags != 1 || handle.reserved[0] != '/' || handle.reserved[63] != 0) return INVALID_VALUE;
    pthread_mutex_lock(&lock);
    Place *place = find(handle.reserved);
    if (!place) result = INVALID_VALUE;
    if (place && !place->opened) result = open_at(place, handle.reserved);
    if (result == SUCCESS) {
        place->opened += 1;
        *address = (unsigned long long)place->start;
    }
    pthread_mutex_unlock(&lock);
    return result;
}

/* The place that an address lies in, with so many bytes behind it. */
static Place *place_of(unsigned long long address, size_t count) {
    for (int index = 0; index < PLACES; index++) {
        Place *place = &places[index];
        unsigned long long start = (unsigned long long)place->start;
        if (place->opened && address >= start && address - start <= place->size && count <= place->size - (address - start))
            return place;
    }
    return NULL;
}

int cuIpcCloseMemHandle(unsigned long long address) {
    if (depth == 0) return INVALID_CONTEXT;
    pthread_mutex_lock(&lock);
    Place *place = place_of(address, 0);
    if (place) {
        place->opened -= 1;
        if (!place->opened) munmap(place->start, place->size);
    }
    pthread_mutex_unlock(&lock);
    return place ? SUCCESS : INVALID_VALUE;
}

int cuMemGetAddressRange_v2(unsigned long long *base, size_t *size, unsigned long long address) {
    if (depth == 0) return INVALID_CONTEXT;
    Place *place = place_of(address, 0);
    size_t length = place ? strlen(place->path) : 0;
    if (length < 7 || strcmp(place->path + length - 7, "unsized") == 0) return INVALID_VALUE;
    *base = (unsigned long long)place->start;
    *size = place->size;
    return SUCCESS;
}

int cuMemcpyDtoH_v2(void *to, unsigned long long from, size_t count) {
    if (depth == 0) return INVALID_CONTEXT;
    if (!place_of(from, count)) return INVALID_VALUE;
    memcpy(to, (void *)from, count);
    return SUCCESS;
}

int cuMemcpyHtoD_v2(unsigned long long to, const void *from, size_t count) {
    if (depth == 0) return INVALID_CONTEXT;
    if (!place_of(to, count)) return INVALID_VALUE;
    free(pending.bytes);
    pending.bytes = malloc(count);
    memcpy(pending.bytes, from, count);
    pending.to = (char *)to;
    pending.count = count;
    return SUCCESS;
}

int cuStreamSynchronize(void *stream) {
    if (depth == 0) return INVALID_CONTEXT;
    if (stream == NULL && pending.bytes) {
        memcpy(pending.to, pending.bytes, pending.count);
        free(pending.bytes);
        pending.bytes = NULL;
    }
    return SUCCESS;
}

int cuGetErrorName(int error, const char **name) {
    switch (error) {
    case INVALID_VALUE: *name = "CUDA_ERROR_INVALID_VALUE"; return SUCCESS;
    case INVALID_DEVICE: *name = "CUDA_ERROR_INVALID_DEVICE"; return SUCCESS;
    case INVALID_CONTEXT: *name = "CUDA_ERROR_INVALID_CONTEXT"; return SUCCESS;
    default: return INVALID_VALUE;
    }
}

/* For the tests: how much memory is open, and how many contexts are held. */
int fake_opened(void) {
    int opened = 0;
    for (int index = 0; index < PLACES; index++) opened += places[index].opened;
    return opened;
}

int fake_retained(void) { return retained; }
