import ArgumentParser

RelayCommand.main()
