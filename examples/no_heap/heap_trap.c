/* A heap that ends the program: linked in, it turns "never allocates" from a promise into something that was seen.
 * Only where a program's own malloc stands in for the C library's (Linux). Must not include the network.
 */
#include <stddef.h>
#include <unistd.h>

static _Noreturn void trap(void) {
  static const char said[] = "the heap was used\n";
  const ssize_t written = write(STDERR_FILENO, said, sizeof said - 1);
  (void)written;
  _exit(70);
}

void* malloc(size_t size) { (void)size, trap(); }
void* calloc(size_t count, size_t size) { (void)count, (void)size, trap(); }
void* realloc(void* memory, size_t size) { (void)memory, (void)size, trap(); }
void* aligned_alloc(size_t alignment, size_t size) { (void)alignment, (void)size, trap(); }
void* memalign(size_t alignment, size_t size) { (void)alignment, (void)size, trap(); }
int posix_memalign(void** memory, size_t alignment, size_t size) { (void)memory, (void)alignment, (void)size, trap(); }
void free(void* memory) {
  if (memory != NULL) trap();
}
