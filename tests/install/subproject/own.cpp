// What a stranger's project has of its own: no flag of gru_core may reach it. Must not know gru_core.
int main() { return 0; }
