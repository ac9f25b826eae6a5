// Two translation units that include every header, in opposite order, link into one program.
int forward();
int backward();

int main() { return forward() + backward(); }
