import ArgumentParser

openStandardStreams()
RelayCommand.main()
